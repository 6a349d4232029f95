"""How much better than expected a draw was: the baselines.

Each is a pure function; those with a memory take it and give it back. Rewards [K] are one
iteration's draws.
"""

from __future__ import annotations

import numpy as np

from mgral_service.domain.arrays import FloatArray


def rloo(rewards: FloatArray) -> FloatArray:
    """[K] each reward less the mean of the others (leave-one-out); they sum to zero. ValueError for
    K < 2.
    """
    count = len(rewards)
    if count < 2:
        raise ValueError("the leave-one-out baseline needs two draws or more")
    return np.asarray((rewards - rewards.mean()) * (count / (count - 1)))


def ema(rewards: FloatArray, state: float | None, memory: float) -> tuple[FloatArray, float]:
    """Against the moving average before this iteration: ref' = memory * ref + (1 - memory) * mean
    reward.
    """
    mean = float(rewards.mean())
    reference = mean if state is None else state
    return rewards - reference, memory * reference + (1.0 - memory) * mean


def previous(rewards: FloatArray, state: float | None) -> tuple[FloatArray, float]:
    """Against the mean reward of the iteration before (MGRAL, Eq. 1); zero baseline gain at the
    first.
    """
    mean = float(rewards.mean())
    return rewards - (mean if state is None else state), mean


def paper(rewards: FloatArray, state: float | None, memory: float) -> tuple[FloatArray, float]:
    """MGRAL, Eq. 2 as printed: ref_i = memory * ref_{i-1} + (1 - memory) * (mAP_i - ref_{i-1}),
    from ref_0 = 0.

    For a steady mAP the fixed point is mAP / 2 whatever the memory, so the advantage stays
    positive: kept for the record, not for use.
    """
    before = 0.0 if state is None else state
    reference = memory * before + (1.0 - memory) * (float(rewards.mean()) - before)
    return rewards - reference, reference


def advantages(
    baseline: str, rewards: FloatArray, state: float | None, memory: float
) -> tuple[FloatArray, float | None]:
    """[K] advantages by the baseline's name (AgentSpec.baseline), and its memory for the next
    iteration.
    """
    match baseline:
        case "rloo":
            return rloo(rewards), None
        case "ema":
            return ema(rewards, state, memory)
        case "previous":
            return previous(rewards, state)
        case "paper":
            return paper(rewards, state, memory)
        case _:
            raise ValueError(f"no baseline is named {baseline!r}")

"""Strategies by name: add one = its file and one line here; the exam in `tests/contract` sits
itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.evidence import Choice
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import QueryStrategy
from mgral_service.domain.specs import BEST_CLASSICAL, JOINED, CycleSpec
from mgral_service.strategies import class_balance, coreset, entropy, entropy_coreset, uniform
from mgral_service.strategies.classical import Classical, Pick

CLASSICAL: Mapping[str, Pick] = {
    "uniform": uniform.pick,
    "entropy": entropy.pick_by_mean,
    "entropy_sum": entropy.pick_by_sum,
    "entropy_root": entropy.pick_by_root,
    "entropy_max": entropy.pick_by_max,
    "coreset": coreset.pick,
    "entropy_coreset": entropy_coreset.pick,
    "class_balance": class_balance.pick,
}
"""Those that need no table; all of them are rivals in the portfolio of "mgral"."""


def _mgral() -> QueryStrategy:
    from mgral_service.strategies.mgral import Mgral  # needs torch; the names alone do not

    return Mgral(CLASSICAL)


STRATEGIES: Mapping[str, Callable[[], QueryStrategy]] = {
    **{name: partial(Classical, name, pick) for name, pick in CLASSICAL.items()},
    "mgral": _mgral,
}


def check(spec: CycleSpec) -> None:
    """InvalidInput, before anything is trained, for what `spec` calls a strategy and is none."""
    fallbacks = (JOINED, BEST_CLASSICAL, *CLASSICAL)
    for where, name, known in (
        ("strategy", spec.strategy, STRATEGIES),
        ("when_uninformed", spec.when_uninformed, fallbacks),
    ):
        if name not in known:
            raise InvalidInput(where, f"{name!r} is none of {', '.join(known)}")


def rerank(
    spec: CycleSpec,
    split: PoolSplit,
    observation: PoolObservation,
    classes: tuple[str, ...],
    agent: Mapping[str, Any],
    winner: str,
    budget: int,
    rng: np.random.Generator,
) -> Choice:
    """The choice of a finished cycle's winner for another budget, without its table.

    `agent` is Choice.agent and `winner` Choice.strategy of that cycle; `spec`, `split` and
    `observation` are those it chose from. InvalidInput if the winner is not known or its arrays
    are missing.
    """
    from mgral_service.strategies import mgral

    return mgral.rerank(CLASSICAL, spec, split, observation, classes, agent, winner, budget, rng)

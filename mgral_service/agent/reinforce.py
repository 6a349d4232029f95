"""Training the agent. It knows a reward function, not the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mgral_service.agent.policy import Policy, pool_scores, walk, weights_of
from mgral_service.agent.sampling import draw_batches, first_pick_entropy, log_probability
from mgral_service.agent.streaming import walk_chunks
from mgral_service.domain.advantage import advantages
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.ports import Report
from mgral_service.domain.records import Progress, Status
from mgral_service.domain.report import RewardPoint
from mgral_service.domain.specs import AgentSpec

Reward = Callable[[Sequence[IntArray]], tuple[FloatArray, FloatArray]]
"""Batches of positions in the embeddings -> mean [K] and standard deviation [K], fractions of mAP.
"""

WALKED = 20_000  # images an iteration walks at most
LEAST_BATCH = 64  # images of a batch drawn from a part of the pool
GREEDY_EVERY = 10  # E, iterations between two values of the greedy top-B
_REPORT_EVERY = 5
_CLIP = 1.0  # norm of the gradient


@dataclass(frozen=True, slots=True, eq=False)
class TrainedAgent:
    """The policy with the best greedy batch: weights for `policy.score`, its scores [N], that
    batch's value.
    """

    weights: Mapping[str, np.ndarray[Any, Any]]
    history: tuple[RewardPoint, ...]
    scores: FloatArray
    value: float


def greedy(scores: FloatArray, size: int) -> IntArray:
    """[size] positions of the highest scores [N], best first; ties by position."""
    return np.argsort(-scores, kind="stable")[:size]


def train_agent(
    embeddings: FloatArray,
    reward: Reward,
    budget: int,
    spec: AgentSpec,
    seed: int,
    report: Report,
    patience: int | None = None,
) -> TrainedAgent:
    """Train on standardised embeddings [N, D], N >= 1, for batches of min(budget, N).

    Of a pool above WALKED images an iteration walks WALKED, drawn anew, for batches smaller in
    proportion; others of them, drawn once, value the greedy batch.
    Everything random comes from `seed`. `patience`: stop when so many greedy values in a row
    brought nothing better; None: never.
    """
    generator = torch.Generator().manual_seed(seed)
    points = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32))
    policy = Policy(points.shape[1], generator)
    settings = spec.advanced
    count = min(len(points), WALKED)
    size = min(budget, len(points))
    size = max(min(size, LEAST_BATCH), size * count // len(points))
    in_turn = torch.arange(count)
    shown = torch.randperm(len(points), generator=generator)[:count].sort().values
    optimiser = torch.optim.Adam(policy.parameters(), lr=settings.learning_rate)
    history: list[RewardPoint] = []
    best: TrainedAgent | None = None
    state: float | None = None
    stalled = 0
    for t in range(1, spec.iterations + 1):
        walked = torch.randperm(len(points), generator=generator)[:count]
        scores = walk(policy, points[walked], in_turn, settings.lane) / _temperature(spec, t)
        batches = draw_batches(scores, size, settings.draws, generator)
        rewards = _risk_averse(reward, list(walked[batches].numpy()), settings.risk_aversion)
        gains, state = advantages(settings.baseline, rewards, state, settings.memory)
        loss = _loss(scores, batches, gains / _unit_of(rewards), settings.entropy)
        _step(policy, optimiser, loss)
        value: float | None = None
        if t % GREEDY_EVERY == 0 or t == spec.iterations:
            now = pool_scores(policy, points[shown], settings.lane)
            chosen = shown.numpy()[greedy(now, size)]
            value = float(_risk_averse(reward, [chosen], settings.risk_aversion)[0])
            stalled += 1
            if best is None or value > best.value:
                best, stalled = TrainedAgent(weights_of(policy, settings.lane), (), now, value), 0
        point = RewardPoint(t, float(rewards.mean()), float(rewards.max()), loss.item(), value)
        history.append(point)
        if t % _REPORT_EVERY == 0 or t == spec.iterations:
            report(_progress(point, best, spec.iterations))
        if best is not None and patience is not None and stalled >= patience:
            break
    assert best is not None  # the last iteration is always valued
    best = replace(best, history=tuple(history))
    if count == len(points):
        return best
    chunks = [part for _, part in walk_chunks(best.weights, points.numpy())]
    return replace(best, scores=np.concatenate(chunks))


def _temperature(spec: AgentSpec, t: int) -> float:
    """tau of iteration t, from the first to the last temperature in equal ratios."""
    first, last = spec.advanced.temperature
    return float(first * (last / first) ** ((t - 1) / max(spec.iterations - 1, 1)))


def _risk_averse(reward: Reward, batches: Sequence[IntArray], risk_aversion: float) -> FloatArray:
    """R = mean - beta * sd, [K]."""
    mean, sd = reward(batches)
    return mean - risk_aversion * sd


def _unit_of(rewards: FloatArray) -> float:
    """What advantages are divided by: the draws' spread, or 1 for a single draw."""
    return float(rewards.std()) + 1e-6 if len(rewards) > 1 else 1.0


def _loss(scores: Tensor, batches: Tensor, gains: FloatArray, bonus: float) -> Tensor:
    """- mean over k of A_k log pi(S_k) / B - eta * entropy; scores are divided by tau."""
    logs = log_probability(scores, batches) / batches.shape[1]
    return -(torch.from_numpy(gains) * logs).mean() - bonus * first_pick_entropy(scores)


def _step(policy: Policy, optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(policy.parameters(), _CLIP)
    optimiser.step()


def _progress(point: RewardPoint, best: TrainedAgent | None, total: int) -> Progress:
    figures = {"reward": point.reward, "best": point.best, "loss": point.loss}
    if best is not None:
        figures["greedy"] = best.value
    return Progress(Status.TRAINING_AGENT.value, point.iteration, total, figures)

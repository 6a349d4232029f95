from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from mgral_service.agent import reinforce
from mgral_service.agent.policy import score
from mgral_service.agent.reinforce import (
    GREEDY_EVERY,
    Reward,
    TrainedAgent,
    greedy,
    train_agent,
)
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.records import Progress
from mgral_service.domain.specs import AgentAdvanced, AgentSpec

POINTS = np.random.default_rng(0).standard_normal((60, 6))
ADVANCED = AgentAdvanced(draws=8, lane=16, learning_rate=3e-3)
SPEC = AgentSpec(iterations=30, advanced=ADVANCED)


def planted(points: FloatArray = POINTS) -> Reward:
    """Additive: the mean of the first embedding over the batch."""

    def reward(batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        return np.array([points[batch, 0].mean() for batch in batches]), np.zeros(len(batches))

    return reward


def trained(spec: AgentSpec = SPEC, seed: int = 0, **options: int) -> TrainedAgent:
    return train_agent(
        POINTS, planted(), 10, spec, seed, lambda progress: None, patience=options.get("patience")
    )


def test_the_agent_learns_a_planted_value() -> None:
    agent = trained(replace(SPEC, iterations=150))
    best = float(np.sort(POINTS[:, 0])[-10:].mean())
    assert agent.value > 0.9 * best
    assert agent.history[-1].reward > agent.history[0].reward + 0.5 * best


def test_the_same_seed_gives_the_same_agent_bit_for_bit() -> None:
    first, second = trained(), trained()
    assert first.history == second.history
    assert first.scores.tolist() == second.scores.tolist()
    for name, value in first.weights.items():
        assert value.tolist() == second.weights[name].tolist()
    assert trained(seed=1).history != first.history


def test_the_best_greedy_batch_is_kept_with_its_weights() -> None:
    agent = trained()
    valued = [point.greedy for point in agent.history if point.greedy is not None]
    assert len(valued) == SPEC.iterations // GREEDY_EVERY
    assert agent.value == max(valued)
    assert agent.scores.tolist() == score(agent.weights, POINTS).tolist()
    assert POINTS[greedy(agent.scores, 10), 0].mean() == pytest.approx(agent.value)


@pytest.mark.parametrize(
    ("baseline", "draws"), [("ema", 1), ("previous", 1), ("paper", 1), ("ema", 4), ("rloo", 2)]
)
def test_every_baseline_trains_to_finite_losses(
    baseline: Literal["rloo", "ema", "previous", "paper"], draws: int
) -> None:
    agent = trained(AgentSpec(4, AgentAdvanced(draws=draws, lane=0, baseline=baseline)))
    assert np.isfinite([point.loss for point in agent.history]).all()
    assert agent.history[-1].greedy is not None


def test_a_standard_deviation_is_taken_off_the_reward() -> None:
    def uncertain(batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        return np.ones(len(batches)), np.full(len(batches), 0.5)

    spec = AgentSpec(1, replace(ADVANCED, risk_aversion=2.0))
    agent = train_agent(POINTS, uncertain, 10, spec, 0, lambda progress: None)
    assert agent.history[0].reward == pytest.approx(0.0)


def test_a_budget_above_the_pool_takes_all() -> None:
    agent = train_agent(
        POINTS[:5], planted(), 10, replace(SPEC, iterations=3), 0, lambda progress: None
    )
    assert sorted(greedy(agent.scores, 10).tolist()) == [0, 1, 2, 3, 4]


def test_patience_stops_a_stalled_training() -> None:
    def flat(batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        return np.ones(len(batches)), np.zeros(len(batches))

    spec = replace(SPEC, iterations=200)
    agent = train_agent(POINTS, flat, 10, spec, 0, lambda progress: None, patience=2)
    assert len(agent.history) == 3 * GREEDY_EVERY


def test_progress_is_reported_and_may_stop_the_training() -> None:
    reports: list[Progress] = []

    def listen(progress: Progress) -> None:
        reports.append(progress)
        if progress.done >= 10:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_agent(POINTS, planted(), 10, SPEC, 0, listen)
    assert [progress.done for progress in reports] == [5, 10]
    assert reports[-1].phase == "TRAINING_AGENT"
    assert reports[-1].total == SPEC.iterations
    assert set(reports[-1].figures) == {"reward", "best", "loss", "greedy"}


def test_a_large_pool_is_walked_in_parts_and_scored_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reinforce, "WALKED", 30)
    monkeypatch.setattr(reinforce, "LEAST_BATCH", 4)
    sizes: set[int] = set()
    walked: set[int] = set()

    def watched(batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        sizes.update(len(batch) for batch in batches)
        walked.update(int(row) for batch in batches for row in batch)
        return planted()(batches)

    spec = replace(SPEC, iterations=120)
    agent = train_agent(POINTS, watched, 12, spec, 0, lambda progress: None)
    assert sizes == {6}  # half the pool, half the budget
    assert len(walked) > 50
    assert agent.scores == pytest.approx(score(agent.weights, POINTS), abs=1e-6)
    chosen = POINTS[greedy(agent.scores, 12), 0].mean()
    assert chosen > 0.7 * np.sort(POINTS[:, 0])[-12:].mean()

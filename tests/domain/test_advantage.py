from __future__ import annotations

import numpy as np
import pytest

from mgral_service.domain import advantage

REWARDS = np.array([0.2, 0.5, 0.3, 0.9])


def test_leave_one_out_advantages_sum_to_zero() -> None:
    gains = advantage.rloo(REWARDS)
    assert gains.sum() == pytest.approx(0)
    assert gains[0] == pytest.approx(0.2 - (0.5 + 0.3 + 0.9) / 3)


def test_leave_one_out_needs_two_draws() -> None:
    with pytest.raises(ValueError, match="two draws"):
        advantage.rloo(REWARDS[:1])


def test_the_moving_average_is_used_before_it_moves() -> None:
    gains, state = advantage.ema(np.array([0.6]), 0.2, 0.5)
    assert gains.tolist() == pytest.approx([0.4])
    assert state == pytest.approx(0.4)


def test_the_moving_average_settles_at_the_reward_itself() -> None:
    state: float | None = None
    for _ in range(60):
        _, state = advantage.ema(np.array([0.6]), state, 0.5)
    assert state == pytest.approx(0.6)


def test_previous_compares_with_the_iteration_before() -> None:
    gains, state = advantage.previous(np.array([0.5]), None)
    assert gains.tolist() == [0.0]
    gains, state = advantage.previous(np.array([0.7]), state)
    assert gains.tolist() == pytest.approx([0.2])
    assert state == pytest.approx(0.7)


@pytest.mark.parametrize("memory", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_equation_two_as_printed_has_its_fixed_point_at_half_the_map(memory: float) -> None:
    gains, state = advantage.paper(np.array([0.6]), 0.3, memory)
    assert state == pytest.approx(0.3)
    assert gains.tolist() == pytest.approx([0.3])


@pytest.mark.parametrize("memory", [0.1, 0.5, 0.9])
def test_equation_two_as_printed_gets_there_from_zero(memory: float) -> None:
    state: float | None = None
    for _ in range(200):
        _, state = advantage.paper(np.array([0.6]), state, memory)
    assert state == pytest.approx(0.3)


@pytest.mark.parametrize("baseline", ["rloo", "ema", "previous", "paper"])
def test_every_baseline_answers_by_name(baseline: str) -> None:
    gains, state = advantage.advantages(baseline, REWARDS, None, 0.5)
    assert gains.shape == REWARDS.shape
    assert (state is None) == (baseline == "rloo")


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(ValueError, match="no baseline"):
        advantage.advantages("median", REWARDS, None, 0.5)

from __future__ import annotations

from itertools import permutations
from math import exp, log

import pytest
import torch

from mgral_service.agent.sampling import draw_batches, first_pick_entropy, log_probability

SCORES = torch.tensor([0.3, -1.0, 2.0, 0.0, 0.7, -0.2, 1.1], dtype=torch.float64)


def by_hand(scores: list[float], batch: tuple[int, ...]) -> float:
    """sum of s_j - ln of what is left to draw from."""
    left = dict(enumerate(scores))
    total = 0.0
    for at in batch:
        total += left[at] - log(sum(exp(one) for one in left.values()))
        del left[at]
    return total


@pytest.mark.parametrize("size", [1, 3, 7])
def test_log_probability_equals_brute_force_and_adds_up_to_one(size: int) -> None:
    batches = list(permutations(range(7), size))
    logs = log_probability(SCORES, torch.tensor(batches))
    expected = [by_hand(SCORES.tolist(), batch) for batch in batches]
    assert logs.tolist() == pytest.approx(expected)
    assert logs.exp().sum().item() == pytest.approx(1.0)


def test_large_scores_do_not_overflow() -> None:
    logs = log_probability(SCORES * 1000, torch.tensor([[2, 6], [1, 5]]))
    assert torch.isfinite(logs).all()


@pytest.mark.parametrize("size", [2, 7])
def test_its_gradient_is_that_of_finite_differences(size: int) -> None:
    scores = SCORES.clone().requires_grad_()
    batch = torch.arange(7).flip(0)[None, :size]
    assert torch.autograd.gradcheck(lambda s: log_probability(s, batch), (scores,))


def test_batches_hold_distinct_images_and_repeat_with_the_seed() -> None:
    first = draw_batches(SCORES, 4, 50, torch.Generator().manual_seed(1))
    assert first.shape == (50, 4)
    assert all(len(set(batch)) == 4 for batch in first.tolist())
    again = draw_batches(SCORES, 4, 50, torch.Generator().manual_seed(1))
    assert first.tolist() == again.tolist()


def test_inclusion_frequencies_are_those_of_plackett_luce() -> None:
    count, size = 40_000, 2
    drawn = draw_batches(SCORES, size, count, torch.Generator().manual_seed(0))
    seen = torch.bincount(drawn.flatten(), minlength=7) / count
    expected = torch.zeros(7, dtype=torch.float64)
    for batch in permutations(range(7), size):
        expected[list(batch)] += exp(by_hand(SCORES.tolist(), batch))
    assert seen.tolist() == pytest.approx(expected.tolist(), abs=0.01)


def test_entropy_of_equal_scores_is_the_log_of_their_number() -> None:
    assert first_pick_entropy(torch.zeros(8)).item() == pytest.approx(log(8))

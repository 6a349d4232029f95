from __future__ import annotations

import numpy as np
import pytest

from mgral_service.domain.value.design import (
    gumbel_top,
    principal_components,
    tilted_batches,
    uniform_batches,
)
from tests.domain.pools import pool_of

DRAW = {"tilted": tilted_batches, "uniform": uniform_batches}


@pytest.mark.parametrize("design", DRAW)
@pytest.mark.parametrize("count", [1, 4, 31])
@pytest.mark.parametrize("batch_size", [1, 5, 80])
def test_every_batch_is_of_distinct_candidates(design: str, count: int, batch_size: int) -> None:
    pool = pool_of(batch_size=batch_size)
    batches = DRAW[design](pool, count, np.random.default_rng(0))
    assert len(batches) == count
    for batch in batches:
        assert len(set(batch.tolist())) == len(batch) == min(batch_size, 48)
        assert set(batch.tolist()) <= set(pool.candidates.tolist())


def test_the_same_rng_gives_the_same_batches_and_another_gives_others() -> None:
    draws = [tilted_batches(pool_of(), 6, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_tilted_batches_move_the_mean_farther_than_uniform_ones() -> None:
    pool = pool_of(600, labelled=50, batch_size=60)
    spread = {
        name: np.var(
            [pool.points[batch].mean(axis=0) for batch in draw(pool, 60, np.random.default_rng(0))],
            axis=0,
        ).sum()
        for name, draw in DRAW.items()
    }
    assert spread["tilted"] > 2 * spread["uniform"]


def test_a_tiny_pool_is_tilted_too() -> None:
    pool = pool_of(14, labelled=12, batch_size=1)
    assert len(tilted_batches(pool, 5, np.random.default_rng(0))) == 5


def test_gumbel_top_draws_in_proportion_to_the_exponential_of_scores() -> None:
    rng = np.random.default_rng(0)
    scores = np.log([0.5, 0.3, 0.2])
    first = [gumbel_top(scores, 1, rng)[0] for _ in range(4000)]
    assert np.bincount(first) / 4000 == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_components_are_few_in_small_pools_and_none_of_constant_points() -> None:
    points = np.random.default_rng(0).standard_normal((5, 30))
    components = principal_components(points, 16)
    assert components.shape == (5, 4)
    assert np.corrcoef(components.T) == pytest.approx(np.eye(4), abs=1e-9)
    assert principal_components(np.ones((5, 3)), 16).shape == (5, 0)

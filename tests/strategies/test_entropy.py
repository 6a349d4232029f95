import numpy as np
import pytest

from mgral_service.strategies import CLASSICAL
from tests.domain.pools import pool_of

POOL = pool_of(60, 20, 8)


def test_by_the_root_uncertainty_and_the_number_of_objects_both_count() -> None:
    ranking = CLASSICAL["entropy_root"].pick(POOL, 8, np.random.default_rng(0))
    objects = POOL.expected_objects.sum(axis=1)
    root = POOL.entropy.mean * objects**0.5
    best = sorted(root[POOL.candidates], reverse=True)[:8]
    assert ranking.scores == pytest.approx(best)
    assert root[ranking.positions] == pytest.approx(best)

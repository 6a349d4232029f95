import numpy as np
import pytest

from mgral_service.strategies import CLASSICAL
from mgral_service.strategies.view import PoolView
from tests.domain.pools import CLASSES, divide, observe

SEEN = observe(60)
VIEW = PoolView(divide(SEEN, 20), SEEN, CLASSES)


def test_by_the_root_doubt_and_the_number_of_objects_both_count() -> None:
    ranking = CLASSICAL["entropy_root"](VIEW, 8, np.random.default_rng(0))
    objects = VIEW.evidence.sum(axis=1)
    every = VIEW.entropy.mean * objects**0.5
    best = sorted(every[VIEW.unlabelled], reverse=True)[:8]
    assert ranking.scores == pytest.approx(best)
    assert every[ranking.positions] == pytest.approx(best)

import numpy as np
import pytest

from mgral_service.strategies import CLASSICAL
from mgral_service.strategies.view import PoolView
from tests.domain.pools import CLASSES, divide, observe

SEEN = observe(60)
VIEW = PoolView(divide(SEEN, 20), SEEN, CLASSES)


def worth(picked: list[int]) -> float:
    """Of labelled and picked images, as the rule states it."""
    return float(np.log(1.0 + VIEW.evidence[[*VIEW.labelled, *picked]].sum(axis=0)).sum())


def test_each_pick_adds_most_and_is_scored_by_it() -> None:
    ranking = CLASSICAL["class_balance"](VIEW, 8, np.random.default_rng(0))
    picked: list[int] = []
    for at, score in zip(ranking.positions.tolist(), ranking.scores, strict=True):
        gains = {
            one: worth([*picked, one]) - worth(picked)
            for one in VIEW.unlabelled.tolist()
            if one not in picked
        }
        assert score == pytest.approx(max(gains.values()))
        assert gains[at] == pytest.approx(max(gains.values()))
        picked.append(at)


def test_its_batch_has_more_even_classes_than_the_one_with_the_most_objects() -> None:
    seen = observe(400, seed=3)
    labels = np.where(np.random.default_rng(0).random(len(seen.detections.labels)) < 0.9, 0, 1)
    seen.detections.labels[:] = labels  # a class of ten is rare, the third is never seen
    view = PoolView(divide(seen, 20), seen, CLASSES)
    picked = CLASSICAL["class_balance"](view, 40, np.random.default_rng(0)).positions
    most = view.unlabelled[np.argsort(-view.evidence[view.unlabelled].sum(axis=1))[:40]]
    rare, plain = (view.evidence[some].sum(axis=0)[1] for some in (picked, most))
    assert rare > 1.5 * plain

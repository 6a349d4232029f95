import numpy as np
import pytest

from mgral_service.strategies import CLASSICAL
from tests.domain.pools import pool_of, predict

POOL = pool_of(60, 20, 8)
PICK = CLASSICAL["class_balance"].pick


def worth(picked: list[int]) -> float:
    """Of labelled and picked images, as the rule states it."""
    rows = [*POOL.labelled, *picked]
    return float(np.log(1.0 + POOL.expected_objects[rows].sum(axis=0)).sum())


def test_each_pick_adds_most_and_is_scored_by_it() -> None:
    ranking = PICK(POOL, 8, np.random.default_rng(0))
    picked: list[int] = []
    for position, score in zip(ranking.positions.tolist(), ranking.scores, strict=True):
        gains = {
            candidate: worth([*picked, candidate]) - worth(picked)
            for candidate in POOL.candidates.tolist()
            if candidate not in picked
        }
        assert score == pytest.approx(max(gains.values()))
        assert gains[position] == pytest.approx(max(gains.values()))
        picked.append(position)


def test_its_batch_has_more_even_classes_than_that_with_the_most_objects() -> None:
    predictions = predict(400, seed=3)
    labels = np.where(
        np.random.default_rng(0).random(len(predictions.detections.labels)) < 0.9, 0, 1
    )
    predictions.detections.labels[:] = labels  # a class of ten is rare, the third is absent
    pool = pool_of(400, 20, 40, predictions=predictions)
    picked = PICK(pool, 40, np.random.default_rng(0)).positions
    objects = pool.expected_objects
    most = pool.candidates[np.argsort(-objects[pool.candidates].sum(axis=1))[:40]]
    assert objects[picked].sum(axis=0)[1] > 1.5 * objects[most].sum(axis=0)[1]

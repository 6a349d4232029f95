from dataclasses import replace

import numpy as np

from mgral_service.strategies.reasons import explain
from mgral_service.strategies.view import PoolView, Ranking
from tests.domain.pools import CLASSES, divide, mean_of, measure, observe

SEEN = observe(60)
SPLIT = divide(SEEN, 20)
VIEW = PoolView(SPLIT, SEEN, CLASSES)
TABLE = VIEW.move(measure(SEEN, SPLIT, 8, 5, mean_of(np.arange(60) / 100)))
RANKING = Ranking(np.array([30, 40]), np.array([2.0, 1.0]))


def test_each_image_names_the_records_nearest_to_it_and_what_they_gained() -> None:
    told = explain(VIEW, "agent", RANKING, {}, TABLE)
    centres = np.stack([VIEW.points[batch].mean(axis=0) for batch in TABLE.batches])
    for at, sentence in zip(RANKING.positions, told, strict=True):
        near = np.linalg.norm(centres - VIEW.points[at], axis=1).argsort()[:2]
        gains = TABLE.deviations()[near]
        words = " and ".join(f"{i} ({gain:+.3f})" for i, gain in zip(near, gains, strict=True))
        assert f"nearest to it are records {words} (mAP over" in sentence


def test_records_of_no_weight_are_not_named() -> None:
    silent = replace(TABLE, weights=np.zeros(8))
    assert all("records" not in one for one in explain(VIEW, "agent", RANKING, {}, silent))


def test_without_a_table_no_record_is_named() -> None:
    assert all("records" not in one for one in explain(VIEW, "coreset", RANKING, {}))

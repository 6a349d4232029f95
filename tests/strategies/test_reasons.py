import numpy as np

from mgral_service.domain.candidate_pool import Ranking
from mgral_service.strategies.reasons import explain
from tests.domain.pools import pool_of, predict


def test_a_reason_reads_like_this() -> None:
    pool = pool_of(60, 20, 8)
    ranking = Ranking(pool.candidates[[3, 7]], np.array([1.234, 0.5]))
    first, second = explain(pool, "core-set", ranking, {"mean entropy": pool.candidates[[3]]})
    assert first.startswith("Rank 1 of 2 by core-set (score 1.23). Entropy above ")
    assert first.endswith("Also chosen by mean entropy.")
    assert "Also chosen" not in second


def test_an_image_without_detections_says_so() -> None:
    pool = pool_of(30, 10, 2, predictions=predict(30, most=0))
    (reason,) = explain(pool, "x", Ranking(pool.candidates[:1], np.array([0.0])), {})
    assert "No object is expected." in reason

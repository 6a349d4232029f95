from __future__ import annotations

import numpy as np
import pytest

from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.errors import InvalidInput
from tests.domain.pools import CLASSES, pool_of, predict


def test_positions_are_of_ids_in_sorted_order_whatever_order_they_came_in() -> None:
    predictions = predict(20)
    ids = predictions.ids
    turned = CandidatePool(predictions.subset(ids[::-1]), ids[4::-1], ids[:4:-1], CLASSES, 3)
    straight = pool_of(20, labelled=5, batch_size=3)
    assert turned.ids == straight.ids == tuple(sorted(ids))
    assert turned.labelled.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(turned.points, straight.points)
    assert turned.names(turned.candidates[:2]) == ids[5:7]


def test_a_batch_is_never_larger_than_the_candidates() -> None:
    assert pool_of(20, labelled=15, batch_size=9).batch_size == 5


def test_an_image_without_predictions_is_named() -> None:
    predictions = predict(10)
    with pytest.raises(InvalidInput, match="img_9999"):
        CandidatePool(predictions, predictions.ids, ["img_9999"], CLASSES, 1)


def test_columns_are_per_image() -> None:
    pool = pool_of()
    assert pool.expected_objects.shape == (60, 3)
    assert pool.novelty[pool.labelled] == pytest.approx(np.zeros(12))
    assert len(pool.entropy.mean) == 60

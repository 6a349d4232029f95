from __future__ import annotations

import numpy as np
import pytest

from mgral_service.domain.boxes import Annotations, PoolPredictions
from tests.domain.pools import predict


def truth() -> Annotations:
    return Annotations(
        ("a", "b", "c"),
        np.array([0, 0, 2]),
        np.array([[0.0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3]]),
        np.array([0, 1, 2]),
        np.array([False, True, False]),
    )


def test_a_subset_keeps_the_order_asked_for_and_renumbers_rows() -> None:
    part = truth().subset(["c", "b", "a"])
    assert part.ids == ("c", "b", "a")
    assert part.image.tolist() == [0, 2, 2]
    assert part.labels.tolist() == [2, 0, 1]
    assert part.ignore.tolist() == [False, False, True]


def test_a_subset_of_an_unknown_image_is_refused() -> None:
    with pytest.raises(KeyError):
        truth().subset(["z"])


def test_images_without_objects_are_kept() -> None:
    part = truth().subset(["b"])
    assert len(part) == 1
    assert part.boxes.shape == (0, 4)


def test_concat_renumbers_and_refuses_shared_ids() -> None:
    both = Annotations.concat([truth(), Annotations.empty(["d"]), Annotations.empty()])
    assert both.ids == ("a", "b", "c", "d")
    assert both.image.tolist() == [0, 0, 2]
    more = Annotations.concat([Annotations.empty(["d"]), truth()])
    assert more.image.tolist() == [1, 1, 3]
    with pytest.raises(ValueError, match="share"):
        Annotations.concat([truth(), truth()])


def test_nothing_to_concat_is_nothing() -> None:
    assert len(Annotations.concat([])) == 0
    assert len(Annotations.empty().subset([])) == 0


def test_an_observation_subset_carries_embeddings_detections_and_columns() -> None:
    whole = predict(6)
    whole = PoolPredictions(whole.ids, whole.embeddings, whole.detections, {"loss": np.arange(6.0)})
    part = whole.subset([whole.ids[4], whole.ids[1]])
    assert part.embeddings.tolist() == whole.embeddings[[4, 1]].tolist()
    assert part.columns["loss"].tolist() == [4, 1]
    assert part.detections.ids == part.ids
    rows = whole.detections.image == 4
    assert part.detections.scores[part.detections.image == 0].tolist() == (
        whole.detections.scores[rows].tolist()
    )

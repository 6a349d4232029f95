"""How the digits benchmark balances classes."""

import numpy as np

from benchmarks.digits import balanced
from mgral_service.domain.boxes import Annotations


def test_each_turn_takes_an_image_of_the_class_with_the_fewest_boxes() -> None:
    truth = Annotations(
        ids=("a", "b", "c", "d"),
        image=np.array([0, 1, 2, 3]),
        boxes=np.tile([0.0, 0.0, 5.0, 5.0], (4, 1)),
        labels=np.array([0, 0, 1, 0]),
        ignore=np.zeros(4, dtype=np.bool_),
    )
    assert balanced(truth, 2, 3) == ["a", "c", "b"]

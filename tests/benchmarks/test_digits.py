"""How the digits benchmark balances classes."""

import numpy as np

from benchmarks.digits import balanced
from mgral_service.datasets import Ingested
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.records import IngestReport


def test_each_turn_takes_an_image_of_the_class_with_the_fewest_boxes() -> None:
    ids = ("a", "b", "c", "d")  # a, b and d show class 0, c shows class 1
    truth = Annotations(
        ids,
        np.array([0, 1, 2, 3]),
        np.tile([0.0, 0.0, 5.0, 5.0], (4, 1)),
        np.array([0, 0, 1, 0]),
        np.zeros(4, dtype=np.bool_),
    )
    report = IngestReport(4, 0, 4, 0, 0, 0)
    data = Ingested(("zero", "one"), (), ids, (), (), (), truth, report)
    assert balanced(data, ["a", "b", "c", "d"], 3) == ["a", "c", "b"]

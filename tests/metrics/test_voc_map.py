"""VOC's two average precisions, by hand: three objects, ranked hit, miss, hit."""

import numpy as np
import pytest

from mgral_service.domain.boxes import Annotations, Detections
from mgral_service.metrics import METRICS
from mgral_service.metrics.voc_map import VocMap

BOXES = np.array([[0.0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]])


def truth(ignore: list[bool]) -> Annotations:
    return Annotations(
        ("a", "b"),
        np.array([0, 0, 1]),
        BOXES,
        np.zeros(3, np.int64),
        np.array(ignore),
    )


def detections_of(image: list[int], boxes: list[list[float]], scores: list[float]) -> Detections:
    count = len(image)
    return Detections(
        ("a", "b"),
        np.array(image),
        np.array(boxes),
        np.zeros(count, np.int64),
        np.array(scores),
        np.zeros((count, 2)),
    )


HIT_MISS_HIT = detections_of(
    [0, 0, 1], [[0, 0, 10, 10], [70, 70, 80, 80], [40, 40, 50, 50]], [0.9, 0.8, 0.7]
)


def test_eleven_points() -> None:
    # recall 1/3 at precision 1 covers 0, .1, .2, .3; recall 2/3 at precision 2/3 covers .4, .5, .6
    value = VocMap("voc07")(HIT_MISS_HIT, truth([False] * 3))
    assert value == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)


def test_area() -> None:
    value = VocMap("voc12")(HIT_MISS_HIT, truth([False] * 3))
    assert value == pytest.approx(1 / 3 * 1 + 1 / 3 * 2 / 3)


def test_a_difficult_object_is_not_counted_and_its_detection_counts_neither_way() -> None:
    value = VocMap("voc12")(HIT_MISS_HIT, truth([True, True, False]))
    assert value == pytest.approx(1 / 2)  # the hit comes after one miss


def test_the_second_detection_of_an_object_is_a_miss() -> None:
    twice = detections_of(
        [0, 0, 1], [[0, 0, 10, 10], [0, 0, 10, 9.5], [40, 40, 50, 50]], [0.9, 0.8, 0.7]
    )
    assert VocMap("voc12")(twice, truth([False] * 3)) == pytest.approx(1 / 3 + 2 / 9)


def test_overlap_of_exactly_one_half_is_a_hit() -> None:
    half = detections_of([0], [[0, 0, 10, 5]], [0.9])
    assert VocMap("voc12")(half, truth([False, True, True])) == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["voc07", "voc12"])
def test_nothing_found_or_nothing_to_find_scores_zero(name: str) -> None:
    nothing = HIT_MISS_HIT.subset(())
    assert METRICS[name]()(nothing, Annotations.empty()) == 0.0
    assert METRICS[name]()(HIT_MISS_HIT, truth([True] * 3)) == 0.0


def test_the_mean_is_over_classes_with_ground_truth() -> None:
    two = Annotations(
        ("a",), np.array([0, 0]), BOXES[:2], np.array([0, 3]), np.array([False, False])
    )
    detection = detections_of([0], [[0, 0, 10, 10]], [0.9]).subset(("a",))
    assert VocMap("voc12")(detection, two) == pytest.approx(0.5)

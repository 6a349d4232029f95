from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from mgral_service.domain import acquisition
from mgral_service.domain.boxes import Detections


def found(image: list[int], probs: list[list[float]], images: int = 3) -> Detections:
    table = np.array(probs, dtype=np.float64).reshape(len(image), 3)
    return Detections(
        tuple(f"i{at}" for at in range(images)),
        np.array(image, dtype=np.int64),
        np.zeros((len(image), 4)),
        table[:, 1:].argmax(axis=1),
        table[:, 1:].max(axis=1, initial=0.0),
        table,
    )


def test_entropy_of_certainty_is_zero_and_of_ignorance_the_log_of_classes() -> None:
    probs = np.array([[1.0, 0, 0], [1 / 3, 1 / 3, 1 / 3], [np.nan, 0, 1]])
    assert acquisition.detection_entropy(probs) == pytest.approx([0, np.log(3), 0])


def test_image_entropy_three_ways() -> None:
    entropy = acquisition.image_entropy(found([0, 0, 2], [[0, 1, 0], [0, 0.5, 0.5], [0, 0.5, 0.5]]))
    assert entropy.mean == pytest.approx([np.log(2) / 2, 0, np.log(2)])
    assert entropy.sum == pytest.approx([np.log(2), 0, np.log(2)])
    assert entropy.max == pytest.approx([np.log(2), 0, np.log(2)])


def test_weak_detections_say_nothing() -> None:
    entropy = acquisition.image_entropy(found([0], [[0.96, 0.02, 0.02]]))
    assert entropy.sum.tolist() == [0, 0, 0]


def test_class_evidence_adds_up_scores_by_the_detections_own_class() -> None:
    seen = found([0, 0, 0, 2], [[0.2, 0.5, 0.3], [0, 1, 0], [0.1, 0, 0.9], [0.97, 0.03, 0]])
    evidence = acquisition.expected_objects(seen, 2)
    assert evidence[0] == pytest.approx([1.5, 0.9])
    assert evidence[1:].tolist() == [[0, 0], [0, 0]]


def test_class_evidence_of_no_detections_is_zero() -> None:
    assert acquisition.expected_objects(found([], []), 2).tolist() == [[0, 0]] * 3


def test_top_b_breaks_ties_by_id_and_puts_nan_last() -> None:
    scores = np.array([1.0, np.nan, 2.0, 1.0])
    assert acquisition.top_b(scores, ["d", "a", "b", "c"], 9).tolist() == [2, 3, 0, 1]


def test_nearest_distance_to_anchors_or_without_any_to_the_centre() -> None:
    points = np.array([[0.0, 0], [3, 4]])
    assert acquisition.nearest_distance(points, points[:1]).tolist() == [0, 5]
    assert acquisition.nearest_distance(points, points[:0]) == pytest.approx([2.5, 2.5])


def test_k_center_takes_the_farthest_first() -> None:
    points = np.array([[0.0], [1], [5], [9]])
    picked, radius = acquisition.k_center_greedy(points, np.array([0]), np.array([1, 2, 3]), 2)
    assert picked.tolist() == [3, 2]
    assert radius == pytest.approx([9, 4])


def test_k_center_picks_equal_points_once_each() -> None:
    picked, _ = acquisition.k_center_greedy(np.ones((5, 2)), np.array([0]), np.arange(1, 5), 9)
    assert sorted(picked.tolist()) == [1, 2, 3, 4]


@pytest.mark.parametrize("seed", range(5))
def test_k_center_greedy_is_within_twice_the_best_radius(seed: int) -> None:
    points = np.random.default_rng(seed).standard_normal((9, 2))
    candidates = np.arange(1, 9)

    def radius(chosen: tuple[int, ...]) -> float:
        return float(acquisition.nearest_distance(points, points[[0, *chosen]]).max())

    best = min(radius(chosen) for chosen in combinations(candidates.tolist(), 3))
    picked, _ = acquisition.k_center_greedy(points, np.array([0]), candidates, 3)
    assert radius(tuple(picked.tolist())) <= 2 * best + 1e-9

"""What strategies share: entropy of detections, class evidence, top-B, k-center greedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Detections

LEAST_SCORE = 0.05  # weaker detections say nothing about an image
_ROWS = 4096  # rows of a distance block, to bound memory


def detection_entropy(probs: FloatArray) -> FloatArray:
    """[K] of class distributions [K, C + 1], background included: -sum p ln p, in nats. Not finite
    counts as 0.
    """
    clean = np.clip(np.nan_to_num(probs, nan=0.0, posinf=0.0, neginf=0.0), 0.0, 1.0)
    return np.asarray(-(clean * np.log(np.where(clean > 0, clean, 1.0))).sum(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class ImageEntropy:
    """Entropy of each image's detections [N] in nats, three ways; 0 for an image without
    detections.
    """

    mean: FloatArray
    sum: FloatArray
    max: FloatArray


def image_entropy(detections: Detections, least_score: float = LEAST_SCORE) -> ImageEntropy:
    """Over the detections scored `least_score` or more, in the order of `detections.ids`."""
    count = len(detections.ids)
    counted = detections.scores >= least_score
    image = detections.image[counted]
    entropy = detection_entropy(detections.probs[counted])
    total = np.bincount(image, weights=entropy, minlength=count).astype(np.float64)
    objects = np.bincount(image, minlength=count)
    largest = np.zeros(count)
    np.maximum.at(largest, image, entropy)
    return ImageEntropy(total / np.maximum(objects, 1), total, largest)


def expected_objects(
    detections: Detections, classes: int, least_score: float = LEAST_SCORE
) -> FloatArray:
    """[N, classes] expected number of objects of each class in each image: the scores of its
    detections summed.

    What a detection gives to classes other than its own is left out: over many images these
    small shares would hide the rare classes. (Where a box is two classes', it is two detections.)
    """
    objects = np.zeros((len(detections.ids), classes))
    counted = (detections.scores >= least_score) & (detections.labels < classes)
    scores = np.clip(detections.scores[counted], 0.0, 1.0)
    np.add.at(objects, (detections.image[counted], detections.labels[counted]), scores)
    return objects


def top_b(scores: FloatArray, ids: Sequence[str], budget: int) -> IntArray:
    """Positions of the `budget` highest scores [N], best first; ties by id, NaN last."""
    worth = np.where(np.isnan(scores), -np.inf, scores)
    order = np.lexsort((np.asarray(ids, dtype=np.str_), -worth))
    return order[:budget].astype(np.int64)


def nearest_distance(points: FloatArray, anchors: FloatArray) -> FloatArray:
    """[N] from each point [N, D] to its nearest anchor [A, D]; without anchors, to the points'
    centre.
    """
    if not len(anchors):
        return np.asarray(np.linalg.norm(points - points.mean(axis=0), axis=1))
    nearest = np.full(len(points), np.inf)
    for start in range(0, len(anchors), _ROWS):
        for row in range(0, len(points), _ROWS):
            block = cdist(points[row : row + _ROWS], anchors[start : start + _ROWS])
            np.minimum(
                nearest[row : row + _ROWS], block.min(axis=1), out=nearest[row : row + _ROWS]
            )
    return nearest


def k_center_greedy(
    points: FloatArray, labelled: IntArray, candidates: IntArray, budget: int
) -> tuple[IntArray, FloatArray]:
    """Core-set's greedy rule (Sener & Savarese): again and again the candidate farthest from all
    centres.

    points [N, D]; centres start as `labelled` positions (without any, as the points' centre);
    memory O(N). Returns positions [b] in the order picked and how far [b] each was when picked; b =
    min(budget, candidates).
    """
    pool = points[candidates]
    squares = (pool**2).sum(axis=1)
    reach = nearest_distance(pool, points[labelled]) ** 2
    count = min(budget, len(candidates))
    picked = np.empty(count, dtype=np.int64)
    radius = np.empty(count)
    for turn in range(count):
        best = int(np.argmax(reach))
        picked[turn], radius[turn] = candidates[best], np.sqrt(max(reach[best], 0.0))
        to_best = np.maximum(squares + squares[best] - 2.0 * (pool @ pool[best]), 0.0)
        taken = reach < 0
        reach = np.minimum(reach, to_best)
        reach[taken] = -1.0
        reach[best] = -1.0
    return picked, radius

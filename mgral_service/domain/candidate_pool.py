"""Images that a batch is chosen from: the pool, or the candidate part of a fold.

Predictions are sorted by image id where they are made; positions in that order are the one index
space of strategies, value models and the agent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mgral_service.domain.acquisition import (
    ImageEntropy,
    expected_objects,
    image_entropy,
    nearest_distance,
)
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import PoolPredictions
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.value.transport import standardise


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """What a rule picks: positions [b] in a candidate pool, best first, each with a score [b]."""

    positions: IntArray
    scores: FloatArray


class CandidatePool:
    """Labelled images and candidates, N in all, with the predictions of one detector.

    predictions  of exactly these images, sorted by id; `ids` [N] are theirs
    labelled     [L] positions of images whose labels the detector trained on
    candidates   [U] positions of the images to choose from
    classes      names [C]
    batch_size   images of a batch: at most U
    fold         which fold of the labelled images; None: the pool itself
    scoring      ids of the images that score proxies
    """

    def __init__(
        self,
        predictions: PoolPredictions,
        labelled: Iterable[str],
        candidates: Iterable[str],
        classes: Sequence[str],
        batch_size: int,
        fold: int | None = None,
        scoring: Sequence[str] = (),
    ) -> None:
        """InvalidInput for a labelled or candidate image without predictions."""
        labelled, candidates = sorted(labelled), sorted(candidates)
        self.ids = tuple(sorted((*labelled, *candidates)))
        missing = set(self.ids) - set(predictions.ids)
        if missing:
            raise InvalidInput(f"image {min(missing)}", "is in the pool but was not predicted")
        self.predictions = (
            predictions if predictions.ids == self.ids else predictions.subset(self.ids)
        )
        self._position = {image_id: position for position, image_id in enumerate(self.ids)}
        self.labelled, self.candidates = self.positions(labelled), self.positions(candidates)
        self.classes, self.fold, self.scoring = tuple(classes), fold, tuple(scoring)
        self.batch_size = min(batch_size, len(candidates))

    def positions(self, ids: Iterable[str]) -> IntArray:
        """Positions of ids; KeyError for one that is not here."""
        return np.array([self._position[image_id] for image_id in ids], dtype=np.int64)

    def names(self, positions: IntArray) -> tuple[str, ...]:
        return tuple(self.ids[position] for position in positions)

    @cached_property
    def points(self) -> FloatArray:
        """[N, D] standardised embeddings."""
        return standardise(self.predictions.embeddings)

    @cached_property
    def entropy(self) -> ImageEntropy:
        """[N] entropy of each image's detections: mean, sum and largest."""
        return image_entropy(self.predictions.detections)

    @cached_property
    def novelty(self) -> FloatArray:
        """[N] distance to the nearest labelled image, standardised embedding units."""
        return nearest_distance(self.points, self.points[self.labelled])

    @cached_property
    def expected_objects(self) -> FloatArray:
        """[N, C] expected objects of each class."""
        return expected_objects(self.predictions.detections, len(self.classes))

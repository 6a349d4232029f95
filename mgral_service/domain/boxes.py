"""Objects in images, as arrays: one row an object, boxes in xyxy absolute pixels of the original
image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from mgral_service.domain.arrays import BoolArray, FloatArray, IntArray


def _rows_of(
    ids: tuple[str, ...], image: IntArray, keep: Iterable[str]
) -> tuple[tuple[str, ...], IntArray, IntArray]:
    """Subset ids in the order asked for, their rows grouped in that order, and each row's new
    image position.
    """
    subset_ids = tuple(keep)
    position = {image_id: row for row, image_id in enumerate(ids)}
    old_to_new = np.full(len(ids), -1, dtype=np.int64)
    for new, image_id in enumerate(subset_ids):
        old_to_new[position[image_id]] = new
    new_image = old_to_new[image] if len(ids) else image
    rows = np.flatnonzero(new_image >= 0)
    rows = rows[np.argsort(new_image[rows], kind="stable")]
    return subset_ids, rows, new_image[rows]


def _joined(parts: Sequence[tuple[tuple[str, ...], IntArray]]) -> tuple[tuple[str, ...], IntArray]:
    """All ids, and each row's position among them; ValueError if an id is in two parts."""
    ids = tuple(name for names, _ in parts for name in names)
    if len(set(ids)) != len(ids):
        raise ValueError("parts to be joined share image ids")
    offsets = np.cumsum([0, *(len(names) for names, _ in parts[:-1])])
    return ids, np.concatenate(
        [image + offset for (_, image), offset in zip(parts, offsets, strict=True)]
    )


@dataclass(frozen=True, slots=True, eq=False)
class Annotations:
    """Ground truth of some images; an image without objects is in `ids` and in no row.

    ids     image ids, distinct
    image   [K] position of the row's image in `ids`
    boxes   [K, 4] xyxy absolute pixels
    labels  [K] class position, 0-based
    ignore  [K] crowd or difficult: neither rewarded nor punished by a metric, never trained on
    """

    ids: tuple[str, ...]
    image: IntArray
    boxes: FloatArray
    labels: IntArray
    ignore: BoolArray

    @classmethod
    def empty(cls, ids: Iterable[str] = ()) -> Annotations:
        return cls(
            tuple(ids),
            np.zeros(0, np.int64),
            np.zeros((0, 4)),
            np.zeros(0, np.int64),
            np.zeros(0, np.bool_),
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.ids)

    def subset(self, ids: Iterable[str]) -> Annotations:
        """The same for `ids` only, in that order; KeyError for an id that is not here."""
        ids, rows, image = _rows_of(self.ids, self.image, ids)
        return Annotations(ids, image, self.boxes[rows], self.labels[rows], self.ignore[rows])

    @staticmethod
    def concat(parts: Iterable[Annotations]) -> Annotations:
        """All images of `parts`, whose ids must not overlap."""
        parts = list(parts)
        if not parts:
            return Annotations.empty()
        ids, image = _joined([(part.ids, part.image) for part in parts])
        return Annotations(
            ids,
            image,
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.ignore for part in parts]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a detector predicts after non-maximum suppression.

    ids     image ids, distinct; an image without detections is here and in no row
    image   [K] position of the row's image in `ids`
    boxes   [K, 4] xyxy absolute pixels
    labels  [K] class position, 0-based
    scores  [K] probability of that class, in [0, 1]
    probs   [K, C + 1] the whole class distribution, background first
    """

    ids: tuple[str, ...]
    image: IntArray
    boxes: FloatArray
    labels: IntArray
    scores: FloatArray
    probs: FloatArray

    def subset(self, ids: Iterable[str]) -> Detections:
        """The same for `ids` only, in that order; KeyError for an id that is not here."""
        ids, rows, image = _rows_of(self.ids, self.image, ids)
        return Detections(
            ids, image, self.boxes[rows], self.labels[rows], self.scores[rows], self.probs[rows]
        )

    @staticmethod
    def concat(parts: Iterable[Detections]) -> Detections:
        """All images of `parts`, one or more, whose ids must not overlap."""
        parts = list(parts)
        ids, image = _joined([(part.ids, part.image) for part in parts])
        return Detections(
            ids,
            image,
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.labels for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.probs for part in parts]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class PoolPredictions:
    """One pass of a detector over images: all that strategies and the agent may look at.

    ids         [N] image ids, distinct, sorted
    embeddings  [N, D] not standardised: the detector's pooled features
    detections  of the same ids, in the same order
    columns     further per-image numbers [N] by name
    """

    ids: tuple[str, ...]
    embeddings: FloatArray
    detections: Detections
    columns: Mapping[str, FloatArray] = field(default_factory=dict)

    def subset(self, ids: Iterable[str]) -> PoolPredictions:
        """The same for `ids` only, in that order; KeyError for an id that is not here."""
        subset_ids = tuple(ids)
        position = {image_id: row for row, image_id in enumerate(self.ids)}
        rows = np.array([position[image_id] for image_id in subset_ids], dtype=np.int64)
        return PoolPredictions(
            subset_ids,
            self.embeddings[rows],
            self.detections.subset(subset_ids),
            {name: column[rows] for name, column in self.columns.items()},
        )

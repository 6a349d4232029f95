"""mAP as Pascal VOC defines it, at IoU 0.5: 11 recall points (2007) or the area (2010 on)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from mgral_service.domain.arrays import BoolArray, FloatArray, IntArray
from mgral_service.domain.boxes import Annotations, Detections

IOU = 0.5


class VocMap:
    """Mean over the classes that have ground truth; 0.0 when none has.

    `ignore` objects are VOC's difficult ones: not counted, and a detection that finds one counts
    neither way. Unlike in VOC's development kit, no pixel is added to widths and heights.
    """

    def __init__(self, form: Literal["voc07", "voc12"] = "voc12") -> None:
        self.form = form

    def __call__(self, detections: Detections, annotations: Annotations) -> float:
        """mAP as a fraction; both cover the same ids, in any order."""
        detections = detections.subset(annotations.ids)
        values = [
            self._average_precision(detections, annotations, label)
            for label in np.unique(annotations.labels[~annotations.ignore]).tolist()
        ]
        return float(np.mean(values)) if values else 0.0

    def _average_precision(self, detections: Detections, truth: Annotations, label: int) -> float:
        rows = np.flatnonzero(detections.labels == label)
        rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
        objects = np.flatnonzero(truth.labels == label)
        hit, void = matches(
            detections.image[rows],
            detections.boxes[rows],
            truth.image[objects],
            truth.boxes[objects],
            truth.ignore[objects],
        )
        true = np.cumsum(hit[~void])
        recall = true / int((~truth.ignore[objects]).sum())
        precision = true / np.arange(1, len(true) + 1)
        return eleven_points(recall, precision) if self.form == "voc07" else area(recall, precision)


def matches(
    image: IntArray,
    boxes: FloatArray,
    truth_image: IntArray,
    truth_boxes: FloatArray,
    ignore: BoolArray,
) -> tuple[BoolArray, BoolArray]:
    """Which detections [K] of one class, best first, are hits, and which count neither way.

    A detection goes to the object that it overlaps most; the second of an object is a miss.
    """
    hit, void = np.zeros(len(image), np.bool_), np.zeros(len(image), np.bool_)
    taken = np.zeros(len(truth_image), np.bool_)
    order = np.argsort(truth_image, kind="stable")
    bounds = np.searchsorted(truth_image[order], np.stack([image, image + 1]))
    for row, (start, stop) in enumerate(bounds.T.tolist()):
        if start == stop:
            continue
        objects = order[start:stop]
        overlap = iou(boxes[row], truth_boxes[objects])
        best = int(np.argmax(overlap))
        if overlap[best] < IOU:
            continue
        target = int(objects[best])
        void[row] = ignore[target]
        hit[row] = not ignore[target] and not taken[target]
        taken[target] = True
    return hit, void


def iou(box: FloatArray, others: FloatArray) -> FloatArray:
    """[K] of a box [4] with others [K, 4], xyxy."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    overlap = np.clip(high - low, 0, None).prod(1)
    areas = (others[:, 2:] - others[:, :2]).prod(1)
    union: FloatArray = (box[2:] - box[:2]).prod() + areas - overlap
    shares: FloatArray = np.divide(overlap, union, out=np.zeros_like(overlap), where=union > 0)
    return shares


def eleven_points(recall: FloatArray, precision: FloatArray) -> float:
    """Mean over recall 0, 0.1 ... 1 of the best precision at that recall or beyond (VOC2007)."""
    return float(np.mean([precision[recall >= point / 10].max(initial=0.0) for point in range(11)]))


def area(recall: FloatArray, precision: FloatArray) -> float:
    """Area under precision made monotone from the right, over recall (VOC2010 and later)."""
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(recall, prepend=0.0)
    return float(steps @ envelope)

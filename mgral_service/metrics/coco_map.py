"""mAP as COCO defines it, by pycocotools (the reference) or hotcoco (the faster)."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.boxes import Annotations, Detections

Engine = Literal["pycocotools", "hotcoco"]
Iou = Literal["ap", "ap50", "ap30"]
IOUS = np.linspace(0.5, 0.95, 10)
THRESHOLDS = {"ap": IOUS, "ap50": IOUS[:1], "ap30": np.array([0.3])}
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_DETECTIONS = 100


class CocoMap:
    """Mean precision at 101 recalls, for IoU .50:.95 ("ap"), .50 ("ap50") or .30 ("ap30").

    At most 100 detections an image and class count. Mean over the classes that have ground truth;
    0.0 when none has. `ignore` objects are COCO crowds: a detection that lies in one counts neither
    way. engine None: the fastest one installed; both give the same number to 1e-9.
    """

    def __init__(self, iou: Iou = "ap50", engine: Engine | None = None) -> None:
        self.iou = iou
        fast = find_spec("hotcoco") is not None
        self.engine: Engine = engine or ("hotcoco" if fast else "pycocotools")

    def __call__(self, detections: Detections, annotations: Annotations) -> float:
        """mAP as a fraction; both cover the same ids, in any order."""
        if bool(annotations.ignore.all()):
            return 0.0
        thresholds = THRESHOLDS[self.iou]
        unread = detections.probs[:, :0]  # [K, 0]: the largest array, and not needed here
        detections = replace(detections, probs=unread).subset(annotations.ids)
        precision = precision_table(self.engine, detections, annotations, thresholds)
        counted = precision[precision > -1]
        return float(counted.mean()) if counted.size else 0.0


def precision_table(
    engine: Engine, detections: Detections, annotations: Annotations, thresholds: FloatArray
) -> FloatArray:
    """[T, R, K] precision by IoU threshold, recall point and class; -1: no ground truth.

    The classes are those of either side, in order; both sides have the same ids in the same order.
    """
    classes: list[int] = np.union1d(annotations.labels, detections.labels).tolist()
    evaluator = _by_hotcoco if engine == "hotcoco" else _by_pycocotools
    run = evaluator(detections, annotations, classes)
    run.params.iouThrs = thresholds.tolist()
    run.params.recThrs = RECALLS.tolist()
    run.params.maxDets = [MOST_DETECTIONS]
    run.params.areaRng = [[0.0, 1e10]]
    run.params.areaRngLbl = ["all"]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        run.evaluate()
        run.accumulate()
    table: FloatArray = run.eval["precision"][:, :, :, 0, 0]
    return table


def _by_hotcoco(detections: Detections, annotations: Annotations, classes: list[int]) -> Any:
    """An evaluator that has read the arrays as they are: no object in Python for a box."""
    from hotcoco import COCO, COCOeval

    images = [{"id": image} for image in range(len(annotations.ids))]
    categories = [{"id": label, "name": str(label)} for label in classes]
    truth = COCO.from_arrays(
        images,
        categories,
        annotations.image,
        annotations.labels,
        _xywh(annotations.boxes),
        iscrowd=annotations.ignore,
    )
    columns = (detections.image, _xywh(detections.boxes), detections.scores, detections.labels)
    return COCOeval(truth, truth.load_res(np.column_stack(columns)), "bbox")


def _by_pycocotools(detections: Detections, annotations: Annotations, classes: list[int]) -> Any:
    from pycocotools.cocoeval import COCOeval

    crowds, none = annotations.ignore, np.zeros_like(detections.labels)
    truth = _indexed(annotations, classes, crowds, np.zeros(len(crowds)))
    return COCOeval(truth, _indexed(detections, classes, none, detections.scores), "bbox")


def _indexed(
    objects: Annotations | Detections,
    classes: list[int],
    crowds: np.ndarray[Any, Any],
    scores: FloatArray,
) -> Any:
    """A COCO object filled from memory. Rows count from 1: 0 means "unmatched" to pycocotools."""
    from pycocotools.coco import COCO

    boxes = _xywh(objects.boxes)
    names = ("image_id", "category_id", "bbox", "area", "iscrowd", "score")
    columns = (objects.image, objects.labels, boxes, boxes[:, 2:].prod(1), crowds, scores)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    coco = COCO()
    coco.dataset = {
        "images": [{"id": image} for image in range(len(objects.ids))],
        "categories": [{"id": label} for label in classes],
        "annotations": [
            {"id": number, **dict(zip(names, row, strict=True))}
            for number, row in enumerate(rows, start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _xywh(boxes: FloatArray) -> FloatArray:
    return np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])

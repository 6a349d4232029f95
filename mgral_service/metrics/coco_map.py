"""mAP as COCO defines it, by pycocotools (the reference) or faster-coco-eval (the faster)."""

from __future__ import annotations

import contextlib
import io
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from mgral_service.domain.boxes import Annotations, Detections

Engine = Literal["pycocotools", "faster-coco-eval"]
IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_DETECTIONS = 100


class CocoMap:
    """Mean average precision over IoU .50:.95 ("ap") or at .50 ("ap50"), 101 recall points.

    At most 100 detections an image count. Mean over the classes that have ground truth; 0.0 when
    none has. `ignore` objects are COCO
    crowds: a detection that lies in one counts neither way. engine None: the fastest one installed;
    both give the same number to 1e-9.
    """

    def __init__(self, iou: Literal["ap", "ap50"] = "ap50", engine: Engine | None = None) -> None:
        self.iou = iou
        fast = find_spec("faster_coco_eval") is not None
        self.engine: Engine = engine or ("faster-coco-eval" if fast else "pycocotools")

    def __call__(self, detections: Detections, annotations: Annotations) -> float:
        """mAP as a fraction; both cover the same ids, in any order."""
        if bool(annotations.ignore.all()):
            return 0.0
        thresholds = IOUS if self.iou == "ap" else IOUS[:1]
        found = detections.subset(annotations.ids)
        precision = _precision(self.engine, found, annotations, thresholds)
        counted = precision[precision > -1]
        return float(counted.mean()) if counted.size else 0.0


def _precision(
    engine: Engine, detections: Detections, annotations: Annotations, thresholds: Any
) -> Any:
    """[T, R, K] precision by IoU threshold, recall point and class; -1: no ground truth."""
    coco, evaluator = _engine(engine)
    classes = np.union1d(annotations.labels, detections.labels).tolist()
    truth = _indexed(coco(), len(annotations.ids), classes, _truth_rows(annotations))
    found = _indexed(coco(), len(annotations.ids), classes, _found_rows(detections))
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        run = evaluator(truth, found, "bbox")
        run.params.iouThrs = np.asarray(thresholds)
        run.params.recThrs = RECALLS
        run.params.maxDets = [MOST_DETECTIONS]
        run.params.areaRng = [[0.0, 1e10]]
        run.params.areaRngLbl = ["all"]
        run.evaluate()
        run.accumulate()
    return run.eval["precision"][:, :, :, 0, 0]


def _engine(engine: Engine) -> tuple[Any, Any]:
    if engine == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        return COCO, COCOeval
    import faster_coco_eval

    return faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster


def _indexed(coco: Any, images: int, classes: list[int], rows: list[dict[str, Any]]) -> Any:
    """A COCO object filled from memory. Rows count from 1: 0 means "unmatched" to evaluators."""
    coco.dataset = {
        "images": [{"id": image} for image in range(images)],
        "categories": [{"id": label} for label in classes],
        "annotations": rows,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _truth_rows(annotations: Annotations) -> list[dict[str, Any]]:
    boxes = _xywh(annotations.boxes)
    return [
        {
            "id": row + 1,
            "image_id": image,
            "category_id": label,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": int(ignore),
        }
        for row, (image, label, box, ignore) in enumerate(
            zip(
                annotations.image.tolist(),
                annotations.labels.tolist(),
                boxes,
                annotations.ignore.tolist(),
                strict=True,
            )
        )
    ]


def _found_rows(detections: Detections) -> list[dict[str, Any]]:
    boxes = _xywh(detections.boxes)
    return [
        {
            "id": row + 1,
            "image_id": image,
            "category_id": label,
            "bbox": box,
            "area": box[2] * box[3],
            "iscrowd": 0,
            "score": score,
        }
        for row, (image, label, box, score) in enumerate(
            zip(
                detections.image.tolist(),
                detections.labels.tolist(),
                boxes,
                detections.scores.tolist(),
                strict=True,
            )
        )
    ]


def _xywh(boxes: Any) -> list[list[float]]:
    rows: list[list[float]] = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]).tolist()
    return rows

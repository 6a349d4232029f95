"""Time of COCO's mAP from arrays against pycocotools, and whether the numbers are the same.

5,000 made-up images, 80 classes, 100 detections each. pycocotools is timed twice: as it is commonly
called (four ranges of object size, three limits of detections), and made to do no more than the
metric does (all sizes, one limit). Both have run once before, on two images. `--quick`: 300 images.
"""

from __future__ import annotations

import contextlib
import io
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.lib.harness import Figures, Options, main
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Annotations, Detections
from mgral_service.metrics import METRICS
from mgral_service.metrics.coco_map import IOUS, CocoMap, precision_table

SEED = 0
IMAGES, QUICK_IMAGES = 5000, 300
CLASSES = 80
DETECTIONS = 100  # an image
OBJECTS = 7.3  # an image on average, as in COCO
KINDS = 3  # classes that an image's objects are of, at most; 2.9 in COCO on average
CROWDS = 0.012  # of the objects, as in COCO
FRAME = np.array([640.0, 480.0])


def measure(options: Options) -> Figures:
    ours, theirs, same_work = METRICS["ap"](), by_pycocotools, CocoMap("ap", "pycocotools")
    small = scenes(2)
    for metric in (ours, theirs, same_work):  # warms up
        metric(*small)
    detections, annotations = scenes(QUICK_IMAGES if options.quick else IMAGES)

    began = perf_counter()
    ap = ours(detections, annotations)
    seconds = perf_counter() - began
    began = perf_counter()
    reference = theirs(detections, annotations)
    pycocotools_seconds = perf_counter() - began
    began = perf_counter()
    same_ap = same_work(detections, annotations)
    one_size_seconds = perf_counter() - began

    ap50 = METRICS["ap50"]()(detections, annotations)
    table = precision_table("hotcoco", detections, annotations, IOUS)
    classes = np.union1d(annotations.labels, detections.labels)
    differences = [
        abs(ap - reference.stats[0]),
        abs(ap - same_ap),
        abs(ap50 - reference.stats[1]),
        np.abs(table - reference.eval["precision"][:, :, classes, 0, -1]).max(),
    ]
    return {
        "speedup": pycocotools_seconds / seconds,
        "max_abs_difference": float(max(differences)),
        "seconds": seconds,
        "pycocotools_seconds": pycocotools_seconds,
        "speedup_one_size": one_size_seconds / seconds,
        "pycocotools_one_size_seconds": one_size_seconds,
        "ap": ap,
        "ap50": ap50,
        "images": len(annotations),
        "objects": len(annotations.labels),
        "detections": len(detections.labels),
    }


def scenes(images: int) -> tuple[Detections, Annotations]:
    """Made-up truth and detections, by SEED.

    Classes have a long tail. Four detections of ten are jittered objects, mostly of the right
    class, with scores that fall with the jitter; the rest lie anywhere with low scores. Scores have
    three decimals, so many tie.
    """
    rng = np.random.default_rng(SEED)
    ids = tuple(f"{number:012d}.jpg" for number in range(images))
    tail = 1 / np.arange(1, CLASSES + 1)
    tail /= tail.sum()

    counts = rng.negative_binomial(1.5, 1.5 / (1.5 + OBJECTS), images)
    counts[0] = max(1, counts[0])  # some object, however few the images
    image = np.repeat(np.arange(images), counts)
    kinds = rng.choice(CLASSES, (images, KINDS), p=tail)
    annotations = Annotations(
        ids,
        image,
        anywhere(rng, len(image)),
        kinds[image, rng.integers(KINDS, size=len(image))],
        rng.random(len(image)) < CROWDS,
    )

    where = np.repeat(np.arange(images), DETECTIONS)
    target, has = objects_of(rng, where, counts)
    hit = has & (rng.random(len(where)) < 0.4)
    spread = rng.exponential(0.12, len(where))
    boxes = np.where(
        hit[:, None],
        jittered(rng, annotations.boxes[target], spread),
        anywhere(rng, len(where)),
    )
    right = has & (rng.random(len(where)) < np.where(hit, 0.9, 0.5))
    labels = np.where(right, annotations.labels[target], rng.choice(CLASSES, len(where), p=tail))
    low, high = rng.beta(1, 8, len(where)), rng.beta(2, 2 + 20 * spread)
    scores = np.where(hit, high, low).round(3)
    probs = np.zeros((len(where), CLASSES + 1))  # no metric reads them
    return Detections(ids, where, boxes, labels, scores, probs), annotations


def anywhere(rng: np.random.Generator, count: int) -> FloatArray:
    """[count, 4] boxes inside FRAME, half of the sides below 67 pixels."""
    sides = np.clip(np.exp(rng.normal(4.2, 0.8, (count, 2))), 4, FRAME - 1)
    low = rng.random((count, 2)) * (FRAME - sides)
    boxes: FloatArray = np.concatenate([low, low + sides], 1)
    return boxes


def jittered(rng: np.random.Generator, boxes: FloatArray, spread: FloatArray) -> FloatArray:
    """[K, 4] with each edge moved by about `spread` [K] of the side; a side is a pixel at least."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    moved: FloatArray = boxes + sides * rng.normal(0, spread[:, None], boxes.shape)
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    return moved


def objects_of(rng: np.random.Generator, image: IntArray, counts: IntArray) -> tuple[IntArray, Any]:
    """For each row [K] a row of an object of its image, at random, and whether there is one."""
    first = np.cumsum(counts) - counts
    row = first[image] + (rng.random(len(image)) * counts[image]).astype(np.int64)
    has = counts[image] > 0
    return np.where(has, row, 0), has


def by_pycocotools(detections: Detections, annotations: Annotations) -> Any:
    """pycocotools as its readme has it, without files; its evaluator after all three steps."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    corners = annotations.boxes
    rows = zip(
        annotations.image.tolist(),
        annotations.labels.tolist(),
        np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2]]).tolist(),
        annotations.ignore.tolist(),
        strict=True,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": image} for image in range(len(annotations))],
            "categories": [{"id": label} for label in range(CLASSES)],
            "annotations": [
                {
                    "id": number,
                    "image_id": image,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": int(ignore),
                }
                for number, (image, label, box, ignore) in enumerate(rows, 1)
            ],
        }
        truth.createIndex()
        corners = detections.boxes
        predicted = truth.loadRes(
            np.column_stack(
                [
                    detections.image,
                    corners[:, :2],
                    corners[:, 2:] - corners[:, :2],
                    detections.scores,
                    detections.labels,
                ]
            )
        )
        run = COCOeval(truth, predicted, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run


if __name__ == "__main__":
    main("map_speed", "COCO's mAP from arrays, against pycocotools", measure)

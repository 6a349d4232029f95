"""COCO's mAP: numbers to check by hand, and two engines that agree."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mgral_service.domain.boxes import Annotations, Detections
from mgral_service.metrics import METRICS
from mgral_service.metrics.coco_map import IOUS, CocoMap, Engine, precision_table

ENGINES: tuple[Engine, ...] = ("pycocotools", "hotcoco")


def truth(
    boxes: list[list[float]], labels: list[int], ignore: list[bool] | None = None
) -> Annotations:
    count = len(boxes)
    return Annotations(
        ("a",),
        np.zeros(count, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(ignore or [False] * count, np.bool_),
    )


def detections_of(boxes: list[list[float]], labels: list[int], scores: list[float]) -> Detections:
    count = len(boxes)
    return Detections(
        ("a",),
        np.zeros(count, np.int64),
        np.array(boxes, np.float64).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(scores, np.float64),
        np.zeros((count, 3)),
    )


def random_case(seed: int) -> tuple[Detections, Annotations]:
    """30 images, 5 classes; jittered copies of the truth with tied scores, misses, noise and
    crowds.
    """
    rng = np.random.default_rng(seed)
    ids = tuple(f"i{number}" for number in range(30))
    image = np.sort(rng.integers(30, size=160))
    low = rng.uniform(0, 80, (160, 2))
    boxes = np.concatenate([low, low + rng.uniform(5, 60, (160, 2))], 1)
    labels = rng.integers(5, size=160)
    annotations = Annotations(ids, image, boxes, labels, rng.random(160) < 0.1)
    rows = rng.integers(160, size=400)
    shifted = boxes[rows] + rng.normal(0, 3, (400, 4))
    shifted[:, 2:] = np.maximum(shifted[:, 2:], shifted[:, :2] + 1)
    guess = np.where(rng.random(400) < 0.8, labels[rows], rng.integers(5, size=400))
    order = np.argsort(image[rows], kind="stable")
    scores = np.round(rng.random(400), 1)
    detections = Detections(
        ids, image[rows][order], shifted[order], guess[order], scores, np.zeros((400, 6))
    )
    return detections, annotations


@pytest.mark.parametrize("engine", ENGINES)
def test_perfect_boxes_score_one(engine: Engine) -> None:
    boxes = [[0.0, 0.0, 10.0, 10.0], [20.0, 20.0, 40.0, 30.0]]
    for iou in ("ap", "ap50"):
        value = CocoMap(iou, engine)(detections_of(boxes, [0, 1], [0.9, 0.8]), truth(boxes, [0, 1]))
        assert value == pytest.approx(1.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_one_of_two_objects_found_first_reaches_51_of_101_recall_points(engine: Engine) -> None:
    both = truth([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0])
    detections = detections_of([[0, 0, 10, 10], [80, 80, 90, 90]], [0, 0], [0.9, 0.5])
    assert CocoMap("ap50", engine)(detections, both) == pytest.approx(51 / 101)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_box_that_overlaps_by_two_fifths_is_found_at_an_iou_of_30_alone(engine: Engine) -> None:
    case = detections_of([[0, 0, 10, 4]], [0], [0.9]), truth([[0, 0, 10, 10]], [0])
    assert CocoMap("ap30", engine)(*case) == pytest.approx(1.0)
    assert CocoMap("ap50", engine)(*case) == 0.0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_class_without_ground_truth_does_not_enter_the_mean(engine: Engine) -> None:
    box = [[0.0, 0.0, 10.0, 10.0]]
    value = CocoMap("ap50", engine)(detections_of(box * 2, [0, 1], [0.5, 0.9]), truth(box, [0]))
    assert value == pytest.approx(1.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_detection_inside_an_ignored_object_counts_neither_way(engine: Engine) -> None:
    case = truth([[0, 0, 10, 10], [50, 50, 90, 90]], [0, 0], [False, True])
    detections = detections_of([[55, 55, 70, 70], [0, 0, 10, 10]], [0, 0], [0.9, 0.5])
    assert CocoMap("ap50", engine)(detections, case) == pytest.approx(1.0)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_ground_truth_or_no_detection_scores_zero(engine: Engine) -> None:
    metric = CocoMap("ap50", engine)
    box = [[0.0, 0.0, 10.0, 10.0]]
    assert metric(detections_of(box, [0], [0.9]), truth([], [])) == 0.0
    assert metric(detections_of([], [], []), truth(box, [0])) == 0.0
    assert metric(detections_of([], [], []), truth(box, [0], [True])) == 0.0


@pytest.mark.parametrize("iou", ["ap", "ap50", "ap30"])
@pytest.mark.parametrize("seed", range(4))
def test_both_engines_give_the_same_number(iou: str, seed: int) -> None:
    case = random_case(seed)
    slow, fast = (CocoMap(iou, engine)(*case) for engine in ENGINES)  # type: ignore[arg-type]
    assert 0 < slow < 1
    assert fast == pytest.approx(slow, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_both_engines_give_the_same_precision_everywhere(seed: int) -> None:
    detections, annotations = random_case(seed)
    slow, fast = (precision_table(engine, detections, annotations, IOUS) for engine in ENGINES)
    assert slow.shape == (10, 101, 5)
    assert np.abs(slow - fast).max() <= 1e-9


@pytest.mark.parametrize("engine", ENGINES)
def test_the_hundred_best_of_a_class_in_an_image_count(engine: Engine) -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    noise = [[50.0, 50.0, 60.0, 60.0]] * 100
    scores = [0.9] * 99
    at_100 = detections_of([*noise[:99], box], [0] * 100, [*scores, 0.5])
    assert CocoMap("ap50", engine)(at_100, truth([box], [0])) == pytest.approx(0.01)
    at_101 = detections_of([*noise, box], [0] * 101, [*scores, 0.9, 0.5])
    assert CocoMap("ap50", engine)(at_101, truth([box], [0])) == 0.0


@pytest.mark.parametrize("engine", ENGINES)
def test_single_precision_will_do(engine: Engine) -> None:
    double = detections_of([[0, 0, 10, 10]], [0], [0.5])
    single = replace(
        double,
        boxes=double.boxes.astype(np.float32),
        scores=double.scores.astype(np.float32),
    )
    assert CocoMap("ap", engine)(single, truth([[0, 0, 10, 10]], [0])) == pytest.approx(1.0)


def test_the_reference_read_from_json_gives_the_same_number(
    tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    from pathlib import Path

    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    detections, annotations = random_case(9)
    xywh = np.column_stack(
        [annotations.boxes[:, :2], annotations.boxes[:, 2:] - annotations.boxes[:, :2]]
    )
    rows = [
        {
            "id": row + 1,
            "image_id": int(annotations.image[row]),
            "category_id": int(annotations.labels[row]),
            "bbox": box.tolist(),
            "area": float(box[2] * box[3]),
            "iscrowd": int(annotations.ignore[row]),
        }
        for row, box in enumerate(xywh)
    ]
    file = Path(str(tmp_path)) / "truth.json"
    images = [{"id": image} for image in range(30)]
    content = {
        "images": images,
        "categories": [{"id": label} for label in range(5)],
        "annotations": rows,
    }
    file.write_text(json.dumps(content))
    coco = COCO(str(file))
    given = np.column_stack(
        [
            detections.image,
            detections.boxes[:, :2],
            detections.boxes[:, 2:] - detections.boxes[:, :2],
            detections.scores,
            detections.labels,
        ]
    )
    run = COCOeval(coco, coco.loadRes(given), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    capsys.readouterr()
    assert METRICS["ap"]()(detections, annotations) == pytest.approx(run.stats[0], abs=1e-9)
    assert METRICS["ap50"]()(detections, annotations) == pytest.approx(run.stats[1], abs=1e-9)
    assert capsys.readouterr() == ("", "")


def test_the_order_of_images_does_not_matter() -> None:
    detections, annotations = random_case(3)
    metric = METRICS["ap"]()
    turned = detections.subset(reversed(detections.ids))
    assert metric(turned, annotations) == pytest.approx(metric(detections, annotations), abs=1e-12)

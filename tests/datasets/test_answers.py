from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgral_service.datasets import Ingested, ingest
from mgral_service.datasets.answers import answer_from, coco_of, read_answers
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput, NotFound
from mgral_service.domain.records import PredictedBox, Reconciliation, SelectedImage, Selection
from tests.datasets.folders import coco_folder

CATEGORIES = [{"id": 50, "name": "dog"}, {"id": 60, "name": "cat"}]


@pytest.fixture
def dataset(tmp_path: Path) -> Ingested:
    return ingest(coco_folder(tmp_path, train=6).write())


def read(
    payload: Any, dataset: Ingested, selected: list[str]
) -> tuple[Annotations, Reconciliation]:
    return read_answers(payload, dataset.record, dataset.images, selected)


def answer(images: list[dict[str, Any]], *boxes: dict[str, Any]) -> dict[str, Any]:
    return {"categories": CATEGORIES, "images": images, "annotations": list(boxes)}


def box(image: Any, bbox: list[float], category: int = 60) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": bbox}


def test_images_are_found_by_image_id_by_text_id_and_by_file_name(dataset: Ingested) -> None:
    a, b, c, d = (image.id for image in dataset.images.images[:4])
    payload = answer(
        [
            {"id": 9, "file_name": "renamed.png", "image_id": c},
            {"id": b},
            {"id": 3, "file_name": "a0.png"},
            {"id": 4, "file_name": "images/a3.png"},
        ],
        box(9, [1, 2, 3, 4]),
        box(b, [5, 6, 7, 8], category=50),
    )
    answers, met = read(payload, dataset, [a, b, c, d])
    assert answers.ids == met.matched == (a, b, c, d)
    assert answers.image.tolist() == [1, 2]
    assert answers.boxes.tolist() == [[5, 6, 12, 14], [1, 2, 4, 6]]
    assert answers.labels.tolist() == [0, 1]
    assert met.complete
    assert met.boxes == 2


def test_unknown_unselected_and_missing_images_are_told(dataset: Ingested) -> None:
    a, b, c = (image.id for image in dataset.images.images[:3])
    images = [
        {"id": 1, "image_id": a},
        {"id": 2, "image_id": c},
        {"id": 3, "image_id": "img_ffffffffffffffffffff", "file_name": "a1.png"},
        {"id": 4, "file_name": "a9.png"},
    ]
    answers, met = read(answer(images, box(2, [1, 1, 5, 5])), dataset, [a, b])
    assert met.matched == answers.ids == (a,)
    assert met.unknown == (c, "img_ffffffffffffffffffff", "a9.png")
    assert met.missing == (b,)
    assert met.boxes == 0
    assert not met.complete


def test_an_image_answered_twice_is_refused_the_second_time(dataset: Ingested) -> None:
    a = dataset.images.images[0].id
    images = [{"id": 1, "image_id": a}, {"id": 2, "file_name": "a0.png"}]
    payload = answer(images, box(1, [1, 1, 5, 5]), box(2, [9, 9, 5, 5]))
    answers, met = read(payload, dataset, [a])
    assert answers.boxes.tolist() == [[1, 1, 6, 6]]
    assert [(item.record, item.action) for item in met.refused] == [("images[1]", "refused")]
    assert "images[0] has answered already" in met.refused[0].problem


def test_boxes_of_an_image_in_another_size_are_scaled_and_in_another_shape_refused(
    dataset: Ingested,
) -> None:
    a, b = (image.id for image in dataset.images.images[:2])
    payload = answer(
        [
            {"id": 1, "image_id": a, "width": 80, "height": 60},
            {"id": 2, "image_id": b, "width": 30, "height": 40},
        ],
        box(1, [2, 4, 6, 8]),
        box(2, [2, 4, 6, 8]),
    )
    answers, met = read(payload, dataset, [a, b])
    assert answers.boxes.tolist() == [[1, 2, 4, 6]]
    assert [item.problem for item in met.repaired] == ["scaled to the file's size"]
    assert "stated as 30 x 40, is 40 x 30" in met.refused[0].problem
    assert (met.matched, met.missing, met.complete) == ((a,), (b,), False)


def test_boxes_meet_the_rules_of_a_dataset(dataset: Ingested) -> None:
    a = dataset.images.images[0].id
    payload = answer(
        [{"id": 1, "image_id": a}],
        box(1, [30, 20, 20, 20]),
        box(1, [1, 1, 0, 5]),
        box(1, [1, 1, float("inf"), 5]),
        box(1, [1, 1, 5, 5], category=70),
        box(1, [1, 1, 5, 5], category=80),
        box(8, [1, 1, 5, 5]),
    )
    payload["categories"] = [*CATEGORIES, {"id": 80, "name": "wolf"}]
    answers, met = read(payload, dataset, [a])
    assert answers.boxes.tolist() == [[30, 20, 40, 30]]
    assert [item.record for item in met.repaired] == ["annotations[0]"]
    assert {item.record: item.problem for item in met.refused} == {
        "annotations[1]": "zero or negative size: [1, 1, 1, 6] (x1, y1, x2, y2)",
        "annotations[2]": "coordinates must be finite numbers, got [1, 1, inf, 6] (x1, y1, x2, y2)",
        "annotations[3]": "unknown category 70",
        "annotations[4]": "unknown category 'wolf'",
        "annotations[5]": "no image has the id 8",
    }


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        {},
        {"categories": CATEGORIES},
        {"categories": CATEGORIES, "images": []},
        {"categories": CATEGORIES, "images": {}, "annotations": []},
        {"categories": [{"id": 1}], "images": [], "annotations": []},
    ],
)
def test_what_is_not_coco_is_refused(dataset: Ingested, payload: Any) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(payload, dataset, [dataset.images.images[0].id])
    assert type(refused.value) is InvalidInput
    assert refused.value.where.startswith("annotations")


def selection(dataset: Ingested) -> Selection:
    boxes = (
        PredictedBox((1.004, 2.0, 11.0, 22.0), "cat", 0.9),
        PredictedBox((3.0, 4.0, 9.0, 9.5), "dog", 0.25),
    )
    return Selection(
        cycle="cyc_1",
        dataset="pets",
        requested="mgral",
        strategy="mgral",
        images=(
            SelectedImage(dataset.images.images[3].id, 1, 0.75, "far from all labelled images"),
            SelectedImage(dataset.images.images[1].id, 2, 0.5, "unsure", boxes),
        ),
    )


def test_a_selection_is_exported_with_its_pre_labels(dataset: Ingested) -> None:
    content = coco_of(selection(dataset), dataset.record, dataset.images)
    assert content["images"][0] == {
        "id": 1,
        "image_id": dataset.images.images[3].id,
        "file_name": "a3.png",
        "width": 40,
        "height": 30,
        "mgral_rank": 1,
        "mgral_score": 0.75,
    }
    assert content["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    assert [(box["image_id"], box["category_id"]) for box in content["annotations"]] == [
        (2, 2),
        (2, 1),
    ]
    assert content["annotations"][0]["bbox"] == [1.0, 2.0, 10.0, 20.0]
    assert content["annotations"][0]["score"] == 0.9
    assert {"info", "licenses"} <= set(content)


def test_an_export_comes_back_as_it_went(dataset: Ingested) -> None:
    chosen = selection(dataset)
    payload = json.loads(
        json.dumps(coco_of(chosen, dataset.record, dataset.images), allow_nan=False)
    )
    ids = [image.image_id for image in chosen.images]
    answers, met = read(payload, dataset, ids)
    assert met.complete
    assert met.matched == tuple(ids)
    np.testing.assert_allclose(answers.boxes, np.array([[1, 2, 11, 22], [3, 4, 9, 9.5]]), atol=0.01)
    assert answers.labels.tolist() == [1, 0]


def test_an_image_that_the_dataset_lacks_cannot_be_exported(dataset: Ingested) -> None:
    foreign = Selection("cyc_1", "pets", "mgral", "mgral", (SelectedImage("img_gone", 1, 1.0, ""),))
    with pytest.raises(NotFound, match="img_gone"):
        coco_of(foreign, dataset.record, dataset.images)


def test_the_annotator_answers_what_was_asked_and_no_more() -> None:
    truth = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]},
            {"id": 2, "image_id": 9, "category_id": 3, "bbox": [5, 6, 7, 8]},
        ],
    }
    asked = {"images": [{"id": 1, "image_id": "img_b", "file_name": "b.jpg"}]}
    answer = answer_from(asked, truth)
    assert answer["images"] == asked["images"]
    assert [(entry["image_id"], entry["bbox"]) for entry in answer["annotations"]] == [
        (1, [5, 6, 7, 8])
    ]

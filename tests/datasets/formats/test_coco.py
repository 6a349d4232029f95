from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgral_service.datasets.formats import images_folder
from mgral_service.datasets.formats.coco import coco_json, image_entry, image_file, read_coco
from mgral_service.datasets.formats.listing import Catalogue
from mgral_service.datasets.validation_log import ValidationLog
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import DatasetRefused
from mgral_service.domain.records import ImageRecord
from mgral_service.domain.specs import DatasetSpec
from tests.datasets.folders import CocoFolder, coco_folder, listing


def read(folder: CocoFolder) -> tuple[Catalogue, ValidationLog]:
    log = ValidationLog()
    return read_coco(folder.write(), log), log


def problems(log: ValidationLog) -> list[tuple[str, str, str]]:
    return [(item.record, item.problem, item.action) for item in log.findings]


def test_boxes_become_corners_and_classes_follow_the_category_id(tmp_path: Path) -> None:
    catalogue, log = read(coco_folder(tmp_path))
    assert catalogue.classes == ("dog", "cat")
    assert [listing.role for listing in catalogue.listings] == ["labelled", "test"]
    image = catalogue.listings[0].images[0]
    assert (image.file, image.size) == ("images/a0.png", (40, 30))
    assert [(box.label, box.box, box.ignore) for box in image.boxes] == [
        ("cat", (10.0, 5.0, 30.0, 15.0), False)
    ]
    assert log.findings == []


def test_a_crowd_is_ignored(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.annotate([0, 0, 9, 9], iscrowd=1)
    catalogue, _ = read(folder)
    assert [box.ignore for box in catalogue.listings[0].images[0].boxes] == [False, True]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"image_id": 99}, "no image has the id 99"),
        ({"image_id": [1]}, "no image has the id a list"),
        ({"category_id": 5}, "unknown category 5"),
        ({"category_id": True}, "unknown category True"),
        ({"category_id": {}}, "unknown category a dict"),
        ({"bbox": "0,0,9,9"}, "`bbox` must hold x, y, width, height"),
        ({"bbox": [0, 0, 9]}, "`bbox` must hold x, y, width, height"),
        ({"bbox": [0, 0, None, 9]}, "`bbox` must hold four numbers, got [0, 0, None, 9]"),
        ({"bbox": [0, 0, True, "9"]}, "`bbox` must hold four numbers, got [0, 0, True, '9']"),
        ({"id": 100}, "annotation id 100 was used before"),
        ({"id": 1.5}, "its `id` must be a whole number or a text"),
        ({"iscrowd": "no"}, "`iscrowd` must be 0 or 1"),
    ],
)
def test_a_wrong_annotation_is_refused_by_name(
    tmp_path: Path, entry: dict[str, Any], problem: str
) -> None:
    folder = coco_folder(tmp_path)
    folder.annotate(**{"bbox": [0, 0, 9, 9], **entry})
    catalogue, log = read(folder)
    assert problems(log) == [("annotations[1]", problem, "refused")]
    assert log.counts["refused_boxes"] == 1
    assert len(catalogue.listings[0].images[0].boxes) == 1


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox"])
def test_an_annotation_without_a_key_is_refused(tmp_path: Path, key: str) -> None:
    folder = coco_folder(tmp_path)
    folder.annotate([0, 0, 9, 9])
    del folder.train["annotations"][1][key]
    _, log = read(folder)
    assert problems(log) == [("annotations[1]", f"has no {key}", "refused")]


def test_annotations_need_no_id(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    del folder.train["annotations"][0]["id"]
    catalogue, log = read(folder)
    assert log.findings == []
    assert len(catalogue.listings[0].images[0].boxes) == 1


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("a0.png", "needs an `id`, a whole number or a text"),
        ({"file_name": "a.png"}, "needs an `id`, a whole number or a text"),
        ({"id": 9}, "needs a `file_name`"),
        ({"id": 9, "file_name": 3}, "needs a `file_name`"),
    ],
)
def test_a_wrong_image_entry_is_refused_by_name(tmp_path: Path, entry: Any, problem: str) -> None:
    folder = coco_folder(tmp_path)
    folder.train["images"].append(entry)
    _, log = read(folder)
    assert problems(log) == [("images[4]", problem, "refused")]


def test_one_image_listed_twice_is_kept_once(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.train["images"].append(dict(folder.train["images"][0]))
    catalogue, log = read(folder)
    assert problems(log) == [("images[4]", "has the image id of images[0]", "refused")]
    assert len(catalogue.listings[0].images) == 4
    assert len(catalogue.listings[0].images[0].boxes) == 1


def test_two_files_of_one_image_id_are_both_refused_with_their_boxes(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.train["images"][1]["id"] = 1
    catalogue, log = read(folder)
    assert [image.file for image in catalogue.listings[0].images] == [
        "images/a2.png",
        "images/a3.png",
    ]
    assert (log.counts["refused_images"], log.counts["refused_boxes"]) == (2, 1)
    assert "names several files" in log.findings[0].problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("\udcff", "is not JSON"),
        ('{"images": [' + "9" * 5000 + "]}", "is not JSON"),
        ("[" * 200_000, "nested too deeply"),
        ("[]", "must be a JSON object"),
        ("{}", "categories"),
        ('{"categories": []}', "lists no category"),
        ('{"categories": [{"id": 1, "name": "a"}]}', "images"),
        ('{"categories": [{"id": 1, "name": "a"}], "images": []}', "annotations"),
        ('{"categories": [{"id": 1}]}', r"categories\[0\]"),
        ('{"categories": [{"id": "1", "name": "a"}]}', r"categories\[0\]"),
        ('{"categories": [{"id": 1, "name": "\\ud800"}]}', "unprintable"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}', "occurs twice"),
        ('{"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}', "occurs twice"),
    ],
)
def test_a_file_that_is_not_coco_refuses_the_dataset(
    tmp_path: Path, text: str, message: str
) -> None:
    spec = coco_folder(tmp_path).write()
    (tmp_path / "train.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DatasetRefused, match=message) as refused:
        read_coco(spec, ValidationLog())
    assert refused.value.where.startswith("train.json")


def test_not_a_number_is_read_and_left_to_the_box_rules(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.annotate([float("nan"), 0, 10**400, 9])
    catalogue, log = read(folder)
    assert log.findings == []
    assert str(catalogue.listings[0].images[0].boxes[1].box) == "(nan, 0.0, nan, 9.0)"


def test_categories_must_be_the_same_in_all_files(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.test["categories"][0]["id"] = 8
    with pytest.raises(DatasetRefused, match=r"test\.json: categories: differ .*train\.json"):
        read(folder)


def test_unlabelled_images_need_neither_categories_nor_annotations(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path).write()
    (tmp_path / "pool.json").write_text(json.dumps({"images": listing(["b.png"])["images"]}))
    catalogue = read_coco(replace(spec, unlabelled="pool.json"), ValidationLog())
    assert [(part.role, len(part.images)) for part in catalogue.listings] == [
        ("labelled", 4),
        ("unlabelled", 1),
        ("test", 2),
    ]


def test_annotations_in_the_unlabelled_file_refuse_the_dataset(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path).write()
    with pytest.raises(DatasetRefused, match=r"train\.json: annotations.*without labels"):
        read_coco(replace(spec, labelled="test.json", unlabelled="train.json"), ValidationLog())


def test_annotation_files_lie_below_the_root_or_have_an_absolute_path(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path / "root").write()
    outside = (tmp_path / "root" / "train.json").rename(tmp_path / "train.json")
    with pytest.raises(DatasetRefused, match="outside the root"):
        read_coco(replace(spec, labelled="../train.json"), ValidationLog())
    assert read_coco(replace(spec, labelled=str(outside)), ValidationLog()).classes == (
        "dog",
        "cat",
    )


@pytest.mark.parametrize("file", ["gone.json", "images", "nul\0.json", "x" * 300])
def test_an_annotation_file_that_cannot_be_read_is_named(tmp_path: Path, file: str) -> None:
    spec = replace(coco_folder(tmp_path).write(), labelled=file)
    with pytest.raises(DatasetRefused) as refused:
        read_coco(spec, ValidationLog())
    assert refused.value.where == file


def test_image_files_are_normalised_paths_below_the_root() -> None:
    spec = DatasetSpec("pets", "/data")
    assert image_file(spec, "a/./b//c.png") == "images/a/b/c.png"
    assert image_file(replace(spec, images="."), "a.png") == "a.png"


def test_an_image_is_taken_from_the_first_folder_that_has_it(tmp_path: Path) -> None:
    for file in ("train/a.png", "val/a.png", "val/b.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    spec = DatasetSpec("pets", str(tmp_path), images="train+val")
    files = [image_file(spec, name) for name in ("a.png", "b.png", "c.png", "nul\0")]
    assert files == ["train/a.png", "val/b.png", "train/c.png", "train/nul\0"]
    assert images_folder(spec) == "."


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    truth = Annotations(
        ids=("a", "b"),
        image=np.array([1, 0]),
        boxes=np.array([[0.1, 0.2, 0.3, 9.1], [1.5, 2.0, 31.0, 29.0]]),
        labels=np.array([1, 0]),
        ignore=np.array([True, False]),
    )
    records = [ImageRecord(name, f"images/{name}0.png", 40, 30) for name in "at"]
    entries = [image_entry(record, "images") for record in records]
    folder.train = coco_json(("dog", "cat"), entries, truth)
    folder.test["categories"] = folder.train["categories"]
    catalogue, log = read(folder)
    assert catalogue.classes == ("dog", "cat")
    first, second = catalogue.listings[0].images
    assert (first.file, second.file, second.size) == ("images/a0.png", "images/t0.png", (40, 30))
    assert [(box.label, box.box, box.ignore) for box in first.boxes] == [
        ("dog", (1.5, 2.0, 31.0, 29.0), False)
    ]
    assert second.boxes[0].box == pytest.approx((0.1, 0.2, 0.3, 9.1), abs=1e-8)
    assert (second.boxes[0].label, second.boxes[0].ignore) == ("cat", True)
    assert log.findings == []
    assert [box["id"] for box in folder.train["annotations"]] == [1, 2]


def test_a_detectors_boxes_are_written_rounded_with_their_scores() -> None:
    boxes = Annotations(
        ids=("a",),
        image=np.zeros(1, np.int64),
        boxes=np.array([[1.004, 2.0, 9.99, 22.0]]),
        labels=np.zeros(1, np.int64),
        ignore=np.zeros(1, np.bool_),
    )
    entries = [{"file_name": "a.png", "width": 40, "height": 30, "mgral_rank": 1}]
    content = coco_json(("dog",), entries, boxes, np.array([0.9]), decimals=2)
    assert content["images"] == [{"id": 1, **entries[0]}]
    assert content["annotations"][0] == {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [1.0, 2.0, 8.99, 20.0],
        "area": 179.8,
        "iscrowd": 0,
        "score": 0.9,
    }

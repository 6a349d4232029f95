from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mgral_service.datasets.coco import read_coco
from mgral_service.datasets.ledger import Ledger
from mgral_service.datasets.listing import Catalogue
from mgral_service.domain.errors import DatasetRefused
from tests.datasets.folders import CocoFolder, coco_folder, listing


def read(folder: CocoFolder) -> tuple[Catalogue, Ledger]:
    ledger = Ledger()
    return read_coco(folder.write(), ledger), ledger


def problems(ledger: Ledger) -> list[tuple[str, str, str]]:
    return [(one.record, one.problem, one.action) for one in ledger.findings]


def test_boxes_become_corners_and_classes_follow_the_category_id(tmp_path: Path) -> None:
    catalogue, ledger = read(coco_folder(tmp_path))
    assert catalogue.classes == ("dog", "cat")
    assert [one.role for one in catalogue.listings] == ["labelled", "test"]
    image = catalogue.listings[0].images[0]
    assert (image.file, image.size) == ("images/a0.png", (40, 30))
    assert [(box.label, box.box, box.ignore) for box in image.boxes] == [
        ("cat", (10.0, 5.0, 30.0, 15.0), False)
    ]
    assert ledger.findings == []


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
    catalogue, ledger = read(folder)
    assert problems(ledger) == [("annotations[1]", problem, "refused")]
    assert ledger.refused_boxes == 1
    assert len(catalogue.listings[0].images[0].boxes) == 1


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox"])
def test_an_annotation_without_a_key_is_refused(tmp_path: Path, key: str) -> None:
    folder = coco_folder(tmp_path)
    folder.annotate([0, 0, 9, 9])
    del folder.train["annotations"][1][key]
    _, ledger = read(folder)
    assert problems(ledger) == [("annotations[1]", f"has no {key}", "refused")]


def test_annotations_need_no_id(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    del folder.train["annotations"][0]["id"]
    catalogue, ledger = read(folder)
    assert ledger.findings == []
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
    _, ledger = read(folder)
    assert problems(ledger) == [("images[4]", problem, "refused")]


def test_one_image_listed_twice_is_kept_once(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.train["images"].append(dict(folder.train["images"][0]))
    catalogue, ledger = read(folder)
    assert problems(ledger) == [("images[4]", "has the image id of images[0]", "refused")]
    assert len(catalogue.listings[0].images) == 4
    assert len(catalogue.listings[0].images[0].boxes) == 1


def test_two_files_of_one_image_id_are_both_refused_with_their_boxes(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.train["images"][1]["id"] = 1
    catalogue, ledger = read(folder)
    assert [image.file for image in catalogue.listings[0].images] == [
        "images/a2.png",
        "images/a3.png",
    ]
    assert (ledger.refused_images, ledger.refused_boxes) == (2, 1)
    assert "names several files" in ledger.findings[0].problem


@pytest.mark.parametrize(
    ("text", "words"),
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
def test_a_file_that_is_not_coco_refuses_the_dataset(tmp_path: Path, text: str, words: str) -> None:
    spec = coco_folder(tmp_path).write()
    (tmp_path / "train.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(DatasetRefused, match=words) as refused:
        read_coco(spec, Ledger())
    assert refused.value.where.startswith("train.json")


def test_not_a_number_is_read_and_left_to_the_box_rules(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.annotate([float("nan"), 0, 10**400, 9])
    catalogue, ledger = read(folder)
    assert ledger.findings == []
    assert str(catalogue.listings[0].images[0].boxes[1].box) == "(nan, 0.0, nan, 9.0)"


def test_categories_must_be_the_same_in_all_files(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.test["categories"][0]["id"] = 8
    with pytest.raises(DatasetRefused, match=r"test\.json: categories: differ .*train\.json"):
        read(folder)


def test_unlabelled_images_need_neither_categories_nor_annotations(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path).write()
    (tmp_path / "pool.json").write_text(json.dumps({"images": listing(["b.png"])["images"]}))
    catalogue = read_coco(replace(spec, unlabelled="pool.json"), Ledger())
    assert [(one.role, len(one.images)) for one in catalogue.listings] == [
        ("labelled", 4),
        ("unlabelled", 1),
        ("test", 2),
    ]


def test_annotations_in_the_unlabelled_file_refuse_the_dataset(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path).write()
    with pytest.raises(DatasetRefused, match=r"train\.json: annotations.*without labels"):
        read_coco(replace(spec, labelled="test.json", unlabelled="train.json"), Ledger())


def test_annotation_files_lie_below_the_root_or_have_an_absolute_path(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path / "root").write()
    outside = (tmp_path / "root" / "train.json").rename(tmp_path / "train.json")
    with pytest.raises(DatasetRefused, match="outside the root"):
        read_coco(replace(spec, labelled="../train.json"), Ledger())
    assert read_coco(replace(spec, labelled=str(outside)), Ledger()).classes == ("dog", "cat")


@pytest.mark.parametrize("file", ["gone.json", "images", "nul\0.json", "x" * 300])
def test_an_annotation_file_that_cannot_be_read_is_named(tmp_path: Path, file: str) -> None:
    spec = replace(coco_folder(tmp_path).write(), labelled=file)
    with pytest.raises(DatasetRefused) as refused:
        read_coco(spec, Ledger())
    assert refused.value.where == file

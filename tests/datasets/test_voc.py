from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mgral_service.datasets.ledger import Ledger
from mgral_service.datasets.voc import read_voc
from mgral_service.domain.errors import DatasetRefused
from tests.datasets.folders import voc_folder, voc_object


def test_objects_become_boxes_and_classes_are_alphabetical(tmp_path: Path) -> None:
    spec = voc_folder(
        tmp_path,
        {
            "a": [voc_object("dog", 1, 2, 11, 22), voc_object("cat", 3, 4, 5.5, 6, difficult=1)],
            "b": [],
        },
    )
    ledger = Ledger()
    catalogue = read_voc(spec, ledger)
    assert catalogue.classes == ("cat", "dog")
    first, second = catalogue.listings[0].images
    assert (first.file, first.size) == ("JPEGImages/a.jpg", (40, 30))
    assert [(box.label, box.box, box.ignore) for box in first.boxes] == [
        ("dog", (1.0, 2.0, 11.0, 22.0), False),
        ("cat", (3.0, 4.0, 5.5, 6.0), True),
    ]
    assert second.boxes == ()
    assert ledger.findings == []


@pytest.mark.parametrize(
    ("element", "problem"),
    [
        ("<object/>", "has no <name>"),
        ("<object><name>cat</name></object>", "has no <bndbox>"),
        (
            "<object><name>cat</name><bndbox><xmin>1</xmin></bndbox></object>",
            "its <bndbox> has no <ymin>",
        ),
        (voc_object("cat", "one", 2, 3, 4), "<xmin> must be a number, got 'one'"),
    ],
)
def test_a_wrong_object_is_refused_by_name(tmp_path: Path, element: str, problem: str) -> None:
    spec = voc_folder(tmp_path, {"a": [voc_object("cat", 0, 0, 9, 9), element]})
    ledger = Ledger()
    read_voc(spec, ledger)
    found = ledger.findings[0]
    assert (found.file, found.record, found.problem) == ("train", "a.xml object[1]", problem)
    assert ledger.refused_boxes == 1


BOMB = """<!DOCTYPE a [<!ENTITY b "cat"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>"""


@pytest.mark.parametrize(
    ("text", "words"),
    [("<annotation>", "not plain XML"), ("<html/>", "<html>"), (BOMB, "not plain XML")],
)
def test_a_wrong_annotation_file_costs_its_image(tmp_path: Path, text: str, words: str) -> None:
    spec = voc_folder(tmp_path, {"a": [voc_object("cat", 0, 0, 9, 9)], "b": []})
    (tmp_path / "Annotations/b.xml").write_text(text)
    ledger = Ledger()
    assert len(read_voc(spec, ledger).listings[0].images) == 1
    assert (ledger.findings[0].record, ledger.refused_images) == ("b.xml", 1)
    assert words in ledger.findings[0].problem


def test_a_missing_or_foreign_annotation_file_costs_its_image(tmp_path: Path) -> None:
    spec = voc_folder(tmp_path / "root", {"a": [voc_object("cat", 0, 0, 9, 9)]})
    (tmp_path / "secret.xml").write_text("<annotation/>")
    (tmp_path / "root/ImageSets/Main/train.txt").write_text("a\ngone\n../../secret\n")
    ledger = Ledger()
    assert len(read_voc(spec, ledger).listings[0].images) == 1
    assert [one.problem for one in ledger.findings] == [
        "no such annotation file",
        "leads outside its folder",
    ]


def test_other_image_endings_are_found(tmp_path: Path) -> None:
    spec = voc_folder(tmp_path, {"a": [voc_object("cat", 0, 0, 9, 9)]})
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages/a.png")
    assert read_voc(spec, Ledger()).listings[0].images[0].file == "JPEGImages/a.png"


@pytest.mark.parametrize("name", ["val", "val.txt", "../../secret", "x" * 300])
def test_a_missing_image_set_refuses_the_dataset(tmp_path: Path, name: str) -> None:
    spec = voc_folder(tmp_path / "root", {"a": [voc_object("cat", 0, 0, 9, 9)]})
    (tmp_path / "secret.txt").write_text("a")
    with pytest.raises(DatasetRefused, match="ImageSets/Main"):
        read_voc(replace(spec, labelled=name), Ledger())


def test_the_image_set_of_a_single_class_is_refused(tmp_path: Path) -> None:
    spec = voc_folder(tmp_path, {"a": [voc_object("cat", 0, 0, 9, 9)]})
    (tmp_path / "ImageSets/Main/cat_train.txt").write_text("a  1\n")
    with pytest.raises(DatasetRefused, match="line 1 holds more than a name"):
        read_voc(replace(spec, labelled="cat_train"), Ledger())


def test_annotated_objects_of_an_unlabelled_image_refuse_the_dataset(tmp_path: Path) -> None:
    spec = voc_folder(tmp_path, {"a": [voc_object("cat", 0, 0, 9, 9)], "b": []})
    (tmp_path / "ImageSets/Main/pool.txt").write_text("b\n")
    pool = replace(spec, unlabelled="pool.txt")
    assert len(read_voc(pool, Ledger()).listings[1].images) == 1
    (tmp_path / "ImageSets/Main/pool.txt").write_text("a\n")
    with pytest.raises(DatasetRefused, match=r"a\.xml: annotates a"):
        read_voc(pool, Ledger())


def test_no_object_at_all_refuses_the_dataset(tmp_path: Path) -> None:
    spec = voc_folder(tmp_path, {"a": []})
    with pytest.raises(DatasetRefused, match="no class to learn"):
        read_voc(spec, Ledger())

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mgral_service.datasets import annotations_of, ingest
from mgral_service.datasets.formats import images_folder
from mgral_service.datasets.formats.voc import image_folders, read_voc
from mgral_service.datasets.oracle import RevealingOracle, hold_back
from mgral_service.datasets.validation_log import ValidationLog
from mgral_service.domain.errors import DatasetRefused
from mgral_service.domain.specs import DatasetSpec
from tests.datasets.folders import voc_folder, voc_object


def test_objects_become_boxes_and_classes_are_alphabetical(tmp_path: Path) -> None:
    spec = voc_folder(
        tmp_path,
        {
            "a": [voc_object("dog", 1, 2, 11, 22), voc_object("cat", 3, 4, 5.5, 6, difficult=1)],
            "b": [],
        },
    )
    log = ValidationLog()
    catalogue = read_voc(spec, log)
    assert catalogue.classes == ("cat", "dog")
    first, second = catalogue.listings[0].images
    assert (first.file, first.size) == ("JPEGImages/a.jpg", (40, 30))
    assert [(box.label, box.box, box.ignore) for box in first.boxes] == [
        ("dog", (1.0, 2.0, 11.0, 22.0), False),
        ("cat", (3.0, 4.0, 5.5, 6.0), True),
    ]
    assert second.boxes == ()
    assert log.findings == []


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
    log = ValidationLog()
    read_voc(spec, log)
    finding = log.findings[0]
    assert (finding.file, finding.record, finding.problem) == ("train", "a.xml object[1]", problem)
    assert log.counts["refused_boxes"] == 1


BOMB = """<!DOCTYPE a [<!ENTITY b "cat"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>"""


@pytest.mark.parametrize(
    ("text", "message"),
    [("<annotation>", "not plain XML"), ("<html/>", "<html>"), (BOMB, "not plain XML")],
)
def test_a_wrong_annotation_file_costs_its_image(tmp_path: Path, text: str, message: str) -> None:
    spec = voc_folder(tmp_path, {"a": [voc_object("cat", 0, 0, 9, 9)], "b": []})
    (tmp_path / "Annotations/b.xml").write_text(text)
    log = ValidationLog()
    assert len(read_voc(spec, log).listings[0].images) == 1
    assert (log.findings[0].record, log.counts["refused_images"]) == ("b.xml", 1)
    assert message in log.findings[0].problem


def test_a_missing_or_foreign_annotation_file_costs_its_image(tmp_path: Path) -> None:
    spec = voc_folder(tmp_path / "root", {"a": [voc_object("cat", 0, 0, 9, 9)]})
    (tmp_path / "secret.xml").write_text("<annotation/>")
    (tmp_path / "root/ImageSets/Main/train.txt").write_text("a\ngone\n../../secret\n")
    log = ValidationLog()
    assert len(read_voc(spec, log).listings[0].images) == 1
    assert [finding.problem for finding in log.findings] == [
        "no such annotation file",
        "leads outside its folder",
    ]


def test_other_image_endings_are_found(tmp_path: Path) -> None:
    spec = voc_folder(tmp_path, {"a": [voc_object("cat", 0, 0, 9, 9)]})
    (tmp_path / "JPEGImages/a.jpg").rename(tmp_path / "JPEGImages/a.png")
    assert read_voc(spec, ValidationLog()).listings[0].images[0].file == "JPEGImages/a.png"


@pytest.mark.parametrize("name", ["val", "val.txt", "../../secret", "x" * 300])
def test_a_missing_image_set_refuses_the_dataset(tmp_path: Path, name: str) -> None:
    spec = voc_folder(tmp_path / "root", {"a": [voc_object("cat", 0, 0, 9, 9)]})
    (tmp_path / "secret.txt").write_text("a")
    with pytest.raises(DatasetRefused, match="ImageSets/Main"):
        read_voc(replace(spec, labelled=name), ValidationLog())


def test_the_image_set_of_a_single_class_is_refused(tmp_path: Path) -> None:
    spec = voc_folder(tmp_path, {"a": [voc_object("cat", 0, 0, 9, 9)]})
    (tmp_path / "ImageSets/Main/cat_train.txt").write_text("a  1\n")
    with pytest.raises(DatasetRefused, match="line 1 holds more than a name"):
        read_voc(replace(spec, labelled="cat_train"), ValidationLog())


def test_annotated_objects_of_an_unlabelled_image_refuse_the_dataset(tmp_path: Path) -> None:
    spec = voc_folder(tmp_path, {"a": [voc_object("cat", 0, 0, 9, 9)], "b": []})
    (tmp_path / "ImageSets/Main/pool.txt").write_text("b\n")
    pool = replace(spec, unlabelled="pool.txt")
    assert len(read_voc(pool, ValidationLog()).listings[1].images) == 1
    (tmp_path / "ImageSets/Main/pool.txt").write_text("a\n")
    with pytest.raises(DatasetRefused, match=r"a\.xml: annotates a"):
        read_voc(pool, ValidationLog())


def test_no_object_at_all_refuses_the_dataset(tmp_path: Path) -> None:
    spec = voc_folder(tmp_path, {"a": []})
    with pytest.raises(DatasetRefused, match="no class to learn"):
        read_voc(spec, ValidationLog())


def voc_years(root: Path) -> DatasetSpec:
    """VOC2007 with images a and b (one cat each) and t (a dog), VOC2012 with a to c (a dog each):
    the same names, other images.
    """
    cat, dog = voc_object("cat", 1, 2, 9, 9), voc_object("dog", 3, 4, 20, 20)
    voc_folder(root / "VOC2007", {"a": [cat], "b": [cat], "t": [dog]})
    voc_folder(root / "VOC2012", {"a": [dog], "b": [dog], "c": [dog]}, first=10)
    sets = {"VOC2007": {"trainval": "a\nb\n", "test": "t\n"}, "VOC2012": {"trainval": "a\nb\nc\n"}}
    for year, files in sets.items():
        for name, text in files.items():
            (root / year / f"ImageSets/Main/{name}.txt").write_text(text)
    return DatasetSpec(
        "pets",
        str(root),
        format="voc",
        labelled="VOC2007/trainval+VOC2012/trainval",
        test="VOC2007/test",
    )


def test_several_years_are_read_as_one(tmp_path: Path) -> None:
    train, test = read_voc(voc_years(tmp_path), ValidationLog()).listings
    assert [(image.record, image.file, image.boxes[0].label) for image in train.images] == [
        ("VOC2007/a.xml", "VOC2007/JPEGImages/a.jpg", "cat"),
        ("VOC2007/b.xml", "VOC2007/JPEGImages/b.jpg", "cat"),
        ("VOC2012/a.xml", "VOC2012/JPEGImages/a.jpg", "dog"),
        ("VOC2012/b.xml", "VOC2012/JPEGImages/b.jpg", "dog"),
        ("VOC2012/c.xml", "VOC2012/JPEGImages/c.jpg", "dog"),
    ]
    assert [image.file for image in test.images] == ["VOC2007/JPEGImages/t.jpg"]


def test_several_years_can_be_held_back_and_revealed(tmp_path: Path) -> None:
    spec = voc_years(tmp_path / "VOCdevkit")
    whole = ingest(spec)
    held = hold_back(whole, tmp_path / "out", initial=2, seed=0)
    got = ingest(held.record.spec)
    assert (got.record.labelled, got.record.unlabelled, got.record.test) == (2, 3, 1)
    assert set(got.images.images) == set(whole.images.images)
    truth = annotations_of(whole.record, whole.images)
    assert len(RevealingOracle(truth).annotate(got.images.unlabelled).boxes) == 3


def test_every_year_has_its_images_in_the_folder_of_one_name(tmp_path: Path) -> None:
    spec = voc_years(tmp_path)
    for year in ("VOC2007", "VOC2012"):
        (tmp_path / year / "JPEGImages").rename(tmp_path / year / "pictures")
    assert len(ingest(replace(spec, images="pictures")).images.images) == 6
    with pytest.raises(DatasetRefused, match="no folder 'VOC2007/JPEGImages' below the root"):
        ingest(spec)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ("VOC2007/trainval+VOC2010/trainval", "VOC2010/ImageSets/Main/trainval.txt: no such"),
        ("VOC2007/trainval+../other/trainval", "other/ImageSets/Main/trainval.txt: leads outside"),
    ],
)
def test_a_year_that_is_not_below_the_root_refuses_the_dataset(
    tmp_path: Path, sets: str, message: str
) -> None:
    spec = voc_years(tmp_path / "VOCdevkit")
    voc_folder(tmp_path / "other", {"a": []})
    with pytest.raises(DatasetRefused, match=message):
        read_voc(replace(spec, labelled=sets), ValidationLog())


def test_voc_keeps_its_own_folder_name_unless_another_is_given() -> None:
    spec = DatasetSpec("pets", "/data", format="voc")
    assert images_folder(spec) == "JPEGImages"
    assert images_folder(replace(spec, images="pictures")) == "pictures"


def test_a_year_has_a_folder_of_its_own() -> None:
    spec = DatasetSpec(
        "pets", "/data", format="voc", labelled="VOC2007/trainval", test="VOC2007/test.txt"
    )
    assert image_folders(spec) == ("VOC2007/JPEGImages",)
    assert images_folder(spec) == "VOC2007/JPEGImages"
    several = replace(spec, labelled="VOC2007/trainval+VOC2012/trainval")
    assert image_folders(several) == ("VOC2007/JPEGImages", "VOC2012/JPEGImages")
    assert images_folder(several) == "."

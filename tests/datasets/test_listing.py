from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mgral_service.datasets.listing import (
    image_file,
    image_folders,
    images_folder,
    named_files,
    root_of,
)
from mgral_service.domain.errors import DatasetRefused
from mgral_service.domain.specs import DatasetSpec

SPEC = DatasetSpec("pets", "/data", test="test.json")


def test_only_roles_with_a_file_are_named() -> None:
    assert named_files(SPEC) == (("labelled", "train.json"), ("test", "test.json"))


def test_image_files_are_normalised_paths_below_the_root() -> None:
    assert image_file(SPEC, "a/./b//c.png") == "images/a/b/c.png"
    assert image_file(replace(SPEC, images="."), "a.png") == "a.png"


def test_voc_keeps_its_own_folder_name_unless_another_is_given() -> None:
    voc = replace(SPEC, format="voc")
    assert images_folder(voc) == "JPEGImages"
    assert images_folder(replace(voc, images="pictures")) == "pictures"


def test_a_year_of_voc_has_a_folder_of_its_own() -> None:
    voc = replace(SPEC, format="voc", labelled="VOC2007/trainval", test="VOC2007/test.txt")
    assert image_folders(voc) == ("VOC2007/JPEGImages",)
    assert images_folder(voc) == "VOC2007/JPEGImages"
    several = replace(voc, labelled="VOC2007/trainval+VOC2012/trainval")
    assert image_folders(several) == ("VOC2007/JPEGImages", "VOC2012/JPEGImages")
    assert images_folder(several) == "."


def test_an_image_is_taken_from_the_first_folder_that_has_it(tmp_path: Path) -> None:
    for file in ("train/a.png", "val/a.png", "val/b.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    spec = replace(SPEC, root=str(tmp_path), images="train+val")
    found = [image_file(spec, name) for name in ("a.png", "b.png", "c.png", "nul\0")]
    assert found == ["train/a.png", "val/b.png", "train/c.png", "train/nul\0"]
    assert images_folder(spec) == "."


@pytest.mark.parametrize("root", ["missing", "nul\0", "file"])
def test_a_root_that_is_no_folder_is_refused(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetRefused, match="root"):
        root_of(replace(SPEC, root=str(tmp_path / root)))

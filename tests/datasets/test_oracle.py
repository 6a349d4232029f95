from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mgral_service.datasets import annotations_of, ingest, record_of
from mgral_service.datasets.oracle import RevealingOracle, hold_back, write_held_back
from mgral_service.domain.errors import InvalidInput
from tests.datasets.folders import coco_folder, voc_folder, voc_object


def test_the_oracle_shows_what_it_is_asked_for_and_remembers(tmp_path: Path) -> None:
    got = ingest(coco_folder(tmp_path).write())
    oracle = RevealingOracle(got.annotations)
    first, second = got.annotations.ids[:2]
    assert oracle.annotate([second, first]).ids == (second, first)
    assert oracle.annotate([first]).boxes.tolist() == [[10, 5, 30, 15]]
    assert oracle.asked == (second, first)


def test_the_oracle_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    got = ingest(coco_folder(tmp_path).write())
    oracle = RevealingOracle(got.annotations)
    with pytest.raises(InvalidInput, match="img_gone"):
        oracle.annotate([got.test[0], "img_gone"])
    assert oracle.asked == ()


def test_holding_back_splits_the_labelled_images(tmp_path: Path) -> None:
    got = ingest(coco_folder(tmp_path, train=12).write())
    labelled, pool = hold_back(got, 3, np.random.default_rng(0))
    assert len(labelled) == 3
    assert sorted(labelled + pool) == sorted(got.labelled)
    assert hold_back(got, 3, np.random.default_rng(0)) == (labelled, pool)
    for wrong in (0, len(got.labelled)):
        with pytest.raises(InvalidInput, match="initial: must lie between 1 and 8"):
            hold_back(got, wrong, np.random.default_rng(0))


def test_held_back_labels_are_in_no_file_that_the_service_sees(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path / "whole", train=10)
    for image in range(2, 11):
        folder.annotate([1.5, 2, image, 4], image_id=image, iscrowd=image % 2)
    spec = folder.write()
    held = write_held_back(spec, tmp_path / "out", initial=4, seed=0)
    got = ingest(held)
    assert (len(got.labelled), len(got.scoring), len(got.unlabelled), len(got.test)) == (3, 1, 6, 2)
    pool = json.loads((tmp_path / "out" / "unlabelled.json").read_text())
    assert pool["annotations"] == []
    assert set(pool["images"][0]) == {"id", "file_name", "width", "height"}
    truth = ingest(spec).annotations
    shown = got.annotations.subset(got.labelled + got.scoring)
    expected = truth.subset(shown.ids)
    np.testing.assert_allclose(shown.boxes, expected.boxes)
    assert shown.labels.tolist() == expected.labels.tolist()
    assert shown.ignore.tolist() == expected.ignore.tolist()
    assert RevealingOracle(truth).annotate(got.unlabelled).ids == got.unlabelled
    assert annotations_of(record_of(held, got, 0.0)).ids == got.annotations.ids


def test_a_smaller_start_is_another_dataset_of_the_same_images(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path / "whole", train=10).write()
    some = ingest(write_held_back(spec, tmp_path / "a", initial=4, seed=0))
    again = ingest(write_held_back(spec, tmp_path / "b", initial=4, seed=0))
    other = ingest(write_held_back(spec, tmp_path / "c", initial=4, seed=1))
    assert some.unlabelled == again.unlabelled != other.unlabelled
    assert set(some.test) == set(other.test)


def test_voc_can_be_held_back_as_well(tmp_path: Path) -> None:
    spec = voc_folder(
        tmp_path / "voc", {name: [voc_object("cat", 1, 2, 9, 9)] for name in "abcdef"}
    )
    got = ingest(write_held_back(spec, tmp_path / "out", initial=2, seed=0))
    assert (len(got.labelled), len(got.scoring), len(got.unlabelled)) == (1, 1, 4)
    assert got.annotations.boxes.tolist() == [[1, 2, 9, 9]] * 2


def test_images_in_two_folders_can_be_held_back(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path / "whole", train=6, test=1).write()
    (tmp_path / "whole/val").mkdir()
    (tmp_path / "whole/images/t0.png").rename(tmp_path / "whole/val/t0.png")
    spec = replace(spec, images="images+val")
    got = ingest(write_held_back(spec, tmp_path / "out", initial=2, seed=0))
    files = sorted(image.file for image in got.images)
    assert files == [*(f"images/a{at}.png" for at in range(6)), "val/t0.png"]

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mgral_service.datasets import annotations_of, ingest
from mgral_service.datasets.oracle import RevealingOracle, hold_back, write_held_back
from mgral_service.domain.errors import InvalidInput
from tests.datasets.folders import coco_folder, voc_folder, voc_object


def test_the_oracle_shows_what_it_is_asked_for(tmp_path: Path) -> None:
    truth = ingest(coco_folder(tmp_path).write()).annotations
    first, second = truth.ids[:2]
    answers = RevealingOracle(truth).annotate([second, first])
    assert answers.ids == (second, first)
    assert answers.boxes.tolist() == [[10, 5, 30, 15]]


def test_the_oracle_refuses_an_image_without_labels(tmp_path: Path) -> None:
    got = ingest(coco_folder(tmp_path).write())
    with pytest.raises(InvalidInput, match="img_gone"):
        RevealingOracle(got.annotations).annotate([got.images.test[0], "img_gone"])


@pytest.mark.parametrize("initial", [0, 4])
def test_an_initial_that_holds_nothing_back_is_refused(tmp_path: Path, initial: int) -> None:
    spec = coco_folder(tmp_path / "whole").write()
    with pytest.raises(InvalidInput, match="initial: must lie between 1 and 3"):
        write_held_back(spec, tmp_path / "out", initial, seed=0)


def test_held_back_labels_are_in_no_file_that_the_service_sees(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path / "whole", train=10)
    for image in range(2, 11):
        folder.annotate([1.5, 2, image, 4], image_id=image, iscrowd=image % 2)
    whole = ingest(folder.write())
    held = hold_back(whole, tmp_path / "out", initial=4, seed=0)
    got = ingest(held.record.spec)
    counts = (got.record.labelled, got.record.unlabelled, got.record.scoring, got.record.test)
    assert counts == (4, 6, 0, 2)
    pool = json.loads((tmp_path / "out" / "unlabelled.json").read_text())
    assert pool["annotations"] == []
    assert set(pool["images"][0]) == {"id", "file_name", "width", "height"}
    expected = whole.annotations.subset(got.annotations.ids)
    np.testing.assert_allclose(got.annotations.boxes, expected.boxes)
    assert got.annotations.labels.tolist() == expected.labels.tolist()
    assert got.annotations.ignore.tolist() == expected.ignore.tolist()
    pool_ids = got.images.unlabelled
    assert RevealingOracle(whole.annotations).annotate(pool_ids).ids == pool_ids


def test_what_is_held_back_needs_no_second_reading(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path / "whole", train=10).write()
    (tmp_path / "whole/test.json").rename(tmp_path / "whole/scoring.json")
    whole = ingest(replace(spec, test=None, scoring="scoring.json"), created=3.0)
    held = hold_back(whole, tmp_path / "out", initial=4, seed=0)
    got = ingest(held.record.spec, created=3.0)
    assert held.record == got.record
    assert held.images == got.images
    assert held.annotations.ids == got.annotations.ids
    np.testing.assert_allclose(held.annotations.boxes, got.annotations.boxes)
    assert annotations_of(held.record, held.images).ids == held.annotations.ids


def test_another_seed_is_another_start(tmp_path: Path) -> None:
    whole = ingest(coco_folder(tmp_path / "whole", train=10).write())
    first, same, other = (
        hold_back(whole, tmp_path / name, initial=4, seed=seed).images
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first.unlabelled == same.unlabelled != other.unlabelled
    assert first.test == other.test


def test_voc_can_be_held_back_as_well(tmp_path: Path) -> None:
    spec = voc_folder(
        tmp_path / "voc", {name: [voc_object("cat", 1, 2, 9, 9)] for name in "abcdef"}
    )
    got = ingest(write_held_back(spec, tmp_path / "out", initial=2, seed=0))
    assert (got.record.labelled, got.record.unlabelled) == (2, 4)
    assert got.annotations.boxes.tolist() == [[1, 2, 9, 9]] * 2


def test_images_in_two_folders_can_be_held_back(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path / "whole", train=6, test=1).write()
    (tmp_path / "whole/val").mkdir()
    (tmp_path / "whole/images/t0.png").rename(tmp_path / "whole/val/t0.png")
    spec = replace(spec, images="images+val")
    got = ingest(write_held_back(spec, tmp_path / "out", initial=2, seed=0))
    files = sorted(image.file for image in got.images.images)
    assert files == [*(f"images/a{index}.png" for index in range(6)), "val/t0.png"]

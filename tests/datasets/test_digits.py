from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgral_service.datasets import digits, ingest
from mgral_service.datasets.digits import LONG_TAIL, write_digits
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.records import Progress
from mgral_service.domain.specs import DatasetSpec


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_rarest_class_is_about_forty_times_rarer() -> None:
    shares = LONG_TAIL.shares
    assert shares.sum() == pytest.approx(1)
    assert shares[0] / shares[9] == pytest.approx(42, abs=0.2)


def test_the_folder_is_a_clean_dataset(tmp_path: Path) -> None:
    events: list[Progress] = []
    out = write_digits(tmp_path / "digits", 30, size=96, report=events.append)
    assert (events[-1].done, events[-1].total) == (40, 40)
    got = ingest(DatasetSpec("digits", str(out), test="test.json"))
    assert got.record.classes == tuple("0123456789")
    assert (len(got.images.labelled), len(got.images.test)) == (30, 10)
    assert got.record.report.findings == ()
    assert {(image.width, image.height) for image in got.images.images} == {(96, 96)}
    counts = np.bincount(got.annotations.labels, minlength=10)
    assert counts[:2].sum() > counts[2:].sum() > 0
    assert "CC BY 4.0" in (out / "README.md").read_text()


def objects_of(out: Path, split: str) -> np.ndarray[Any, Any]:
    """[images, 10] objects of each class."""
    content = json.loads((out / f"{split}.json").read_text())
    counts = np.zeros((len(content["images"]), 10), dtype=np.int64)
    for entry in content["annotations"]:
        counts[entry["image_id"] - 1, entry["category_id"] - 1] += 1
    return counts


def test_a_camera_delivers_empty_frames_repeats_and_few_rare_classes(tmp_path: Path) -> None:
    out = write_digits(tmp_path, 160, test=60, size=64, camera=True)
    train, test = objects_of(out, "train"), objects_of(out, "test")
    assert (train.sum(axis=1) == 0).mean() == pytest.approx(0.6, abs=0.12)
    assert (test.sum(axis=1) == 0).mean() == pytest.approx(0.1, abs=0.08)
    assert train[:, :3].sum() / train.sum() == pytest.approx(0.8, abs=0.12)
    assert test.sum(axis=0).min() >= 4
    assert max(train.sum(axis=1).max(), test.sum(axis=1).max()) <= 2
    assert "empty" in (out / "README.md").read_text()


def test_a_camera_stands_still_in_training_scenes_only(tmp_path: Path) -> None:
    out = write_digits(tmp_path, 40, test=10, size=64, camera=True)
    images = json.loads((out / "train.json").read_text())["images"]
    original, copies = "", 0
    for image in images:
        if "copy_of" in image:
            assert image["copy_of"] == original
            copies += 1
        else:
            original = image["file_name"]
    assert copies >= 8
    tests = json.loads((out / "test.json").read_text())["images"]
    assert not any("copy_of" in image for image in tests)


@pytest.mark.parametrize("camera", [False, True])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, camera: bool) -> None:
    first, second, other = (
        digests(write_digits(tmp_path / name, 6, test=2, size=64, seed=seed, camera=camera))
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second
    assert first["images/train_00000.jpg"] != other["images/train_00000.jpg"]


def test_a_larger_folder_begins_with_the_smaller_one(tmp_path: Path) -> None:
    small = digests(write_digits(tmp_path / "a", 4, test=1, size=64))
    large = digests(write_digits(tmp_path / "b", 6, test=1, size=64))
    images = [name for name in small if name.startswith("images")]
    assert {name: large[name] for name in images} == {name: small[name] for name in images}


def test_near_duplicates_stay_in_their_split(tmp_path: Path) -> None:
    out = write_digits(tmp_path, 40, test=20, size=64)
    for split, least in (("train", 3), ("test", 1)):
        content = json.loads((out / f"{split}.json").read_text())
        names = {image["file_name"] for image in content["images"]}
        copies = [image["copy_of"] for image in content["images"] if "copy_of" in image]
        assert len(copies) >= least
        assert set(copies) <= names


def test_no_handwritten_digit_is_in_both_splits() -> None:
    train, test = digits._glyphs(0)
    assert sum(map(len, train)) + sum(map(len, test)) == 1797
    for own, others in zip(train, test, strict=True):
        assert len(others) / (len(own) + len(others)) == pytest.approx(0.25, abs=0.01)
        assert not {glyph.tobytes() for glyph in own} & {glyph.tobytes() for glyph in others}


@pytest.mark.parametrize("wrong", [{"images": 0}, {"test": 0}, {"size": 32}, {"seed": -1}])
def test_arguments_that_make_no_dataset_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        write_digits(tmp_path, **{"images": 4, **wrong})

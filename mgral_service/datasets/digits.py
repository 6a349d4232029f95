"""A detection dataset made of the 1,797 real handwritten digits that scikit-learn ships.

Ten classes with a long tail, scenes that differ in scale, clutter and contrast, near-duplicates: a
pool in which the choice of images matters. The same arguments give the same bytes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from mgral_service.datasets.scenes import Scene, compose, jitter
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import Report
from mgral_service.domain.records import Progress

FALLOFF = 0.66
"""Share of each class in terms of the one before it; 0.66 ** 9 is one in 42."""

DUPLICATES = 0.2
"""Share of the scenes that are a jittered copy of an earlier one of the same split."""

TEST_SHARE = 0.25
"""Of each class's handwritten digits; they appear in test scenes only."""

LICENCE = """\
# Digits: scenes of real handwritten digits

{train} training and {test} test scenes of {size} x {size} pixels, generated with seed {seed}.
COCO form: `images/`, `train.json`, `test.json`; ten classes, `0` to `9`, each {falloff} times as
frequent as the one before it.

Every digit was written by a person: the scenes use the 1,797 pictures of 8 x 8 pixels that
scikit-learn ships as `load_digits` (BSD-3-Clause), the test part of "Optical Recognition of
Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, CC BY 4.0. They were enlarged, turned, slanted and coloured. The
backgrounds and the clutter (strokes, blobs, pieces of digits) are drawn.

- About {duplicates:.0%} of the scenes of each split are slightly changed copies of another scene of
  that split: `copy_of` names its file.
- Digits that appear in test scenes appear in no training scene.
"""


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """One file's scenes; `number` sets its random streams apart from the other's."""

    name: str
    number: int
    count: int
    glyphs: Sequence[FloatArray]


def class_shares() -> FloatArray:
    """[10] how often each digit is drawn; 0 is the commonest, 9 the rarest."""
    falling = FALLOFF ** np.arange(10, dtype=np.float64)
    shares: FloatArray = falling / falling.sum()
    return shares


def write_digits(
    out: Path,
    images: int,
    test: int | None = None,
    size: int = 160,
    seed: int = 0,
    report: Report | None = None,
) -> Path:
    """Write `images` training and `test` (default: a third as many) test scenes of `size` pixels to
    the folder `out`, which is returned.

    InvalidInput for arguments that make no dataset.
    """
    test = max(1, images // 3) if test is None else test
    if images < 1 or test < 1:
        raise InvalidInput("images", "there must be one training and one test scene at least")
    if not 64 <= size <= 1024:
        raise InvalidInput("size", "must lie between 64 and 1024 pixels")
    if seed < 0:
        raise InvalidInput("seed", "must be 0 or more")
    (out / "images").mkdir(parents=True, exist_ok=True)
    train_glyphs, test_glyphs = _glyphs(seed)
    done = 0
    for split in (
        _Split("train", 0, images, train_glyphs),
        _Split("test", 1, test, test_glyphs),
    ):
        entries: list[dict[str, Any]] = []
        scenes: list[Scene] = []
        for at, source in enumerate(_sources(split, seed)):
            scene = _scene(split, at, source, size, seed)
            entries.append(_write_image(out, split, at, source, scene.pixels))
            scenes.append(scene)
            done += 1
            if report is not None and (done % 10 == 0 or done == images + test):
                report(Progress("COMPOSING", done, images + test))
        content = _coco_of(entries, scenes, split.name)
        (out / f"{split.name}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    words = LICENCE.format(
        train=images, test=test, size=size, seed=seed, falloff=FALLOFF, duplicates=DUPLICATES
    )
    (out / "README.md").write_text(words, "utf-8")
    return out


def _glyphs(seed: int) -> tuple[list[FloatArray], list[FloatArray]]:
    """By digit, [G, 8, 8] ink in [0, 1]: those of training scenes, those of test scenes."""
    digits = load_digits()
    rng = np.random.default_rng([seed, 2])
    train, test = [], []
    for digit in range(10):
        own = digits.images[digits.target == digit] / 16.0
        order = rng.permutation(len(own))
        first = round(TEST_SHARE * len(own))
        test.append(own[order[:first]])
        train.append(own[order[first:]])
    return train, test


def _sources(split: _Split, seed: int) -> list[int]:
    """For each scene the number of the scene it shows: its own, or an earlier original's."""
    rng = np.random.default_rng([seed, 3, split.number])
    sources: list[int] = []
    originals: list[int] = []
    for at in range(split.count):
        copied = rng.random() < DUPLICATES and bool(originals)
        pick = int(rng.integers(len(originals))) if copied else 0
        sources.append(originals[pick] if copied else at)
        if not copied:
            originals.append(at)
    return sources


def _scene(split: _Split, at: int, source: int, size: int, seed: int) -> Scene:
    rng = np.random.default_rng([seed, 4, split.number, source])
    scene = compose(split.glyphs, class_shares(), size, rng)
    if source == at:
        return scene
    return jitter(scene, np.random.default_rng([seed, 5, split.number, at]))


def _write_image(
    out: Path, split: _Split, at: int, source: int, pixels: np.ndarray[Any, Any]
) -> dict[str, Any]:
    """The scene's COCO entry."""
    name = _file_name(split, at)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    (out / "images" / name).write_bytes(buffer.getvalue())
    height, width = pixels.shape[:2]
    entry = {"id": at + 1, "file_name": name, "width": width, "height": height}
    return entry if source == at else {**entry, "copy_of": _file_name(split, source)}


def _file_name(split: _Split, at: int) -> str:
    return f"{split.name}_{at:05d}.jpg"


def _coco_of(
    entries: Sequence[dict[str, Any]], scenes: Sequence[Scene], split: str
) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for entry, scene in zip(entries, scenes, strict=True):
        for box, digit in zip(scene.boxes.tolist(), scene.digits.tolist(), strict=True):
            x1, y1, x2, y2 = box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": entry["id"],
                    "category_id": digit + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    return {
        "info": {"description": f"Scenes of real handwritten digits: {split}"},
        "licenses": [
            {"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}
        ],
        "categories": [{"id": digit + 1, "name": str(digit)} for digit in range(10)],
        "images": list(entries),
        "annotations": annotations,
    }

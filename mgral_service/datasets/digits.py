"""Detection datasets made of the 1,797 real handwritten digits that scikit-learn ships.

Ten classes, scenes that differ in scale, clutter and contrast, near-duplicates: pools in which the
choice of images matters. The same arguments give the same bytes.
"""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from mgral_service.datasets.formats.coco import coco_json
from mgral_service.datasets.scenes import CROWDED, Scene, SceneStyle, compose, jitter
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import Report
from mgral_service.domain.records import Progress

FALLOFF = 0.66
"""Share of each class in terms of the one before it; 0.66 ** 9 is one in 42."""

TEST_SHARE = 0.25
"""Of each class's handwritten digits; they appear in test scenes only."""

CAMERA_STYLE = SceneStyle(digits=(1, 2), heights=(0.3, 0.6), fragments=(0, 2))
"""Few large digits and little clutter, which a frozen backbone can tell apart."""

COMMON, RARE_SHARE = 3, 0.2
"""Of a camera's training digits: the common classes, and the share of all others together."""

README = """\
# Digits: scenes of real handwritten digits

{train} training and {test} test scenes of {size} x {size} pixels, generated with seed {seed}.
COCO form: `images/`, `train.json`, `test.json`; ten classes, `0` to `9`{classes}

Every digit was written by a person: the scenes use the 1,797 pictures of 8 x 8 pixels that
scikit-learn ships as `load_digits` (BSD-3-Clause), the test part of "Optical Recognition of
Handwritten Digits" by E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, CC BY 4.0. They were enlarged, turned, slanted and coloured. The
backgrounds and the clutter (strokes, blobs, pieces of digits) are drawn.

{scenes}
- Digits that appear in test scenes appear in no training scene.
"""


LONG_TAIL_CLASSES = f""", each {FALLOFF} times as
frequent as the one before it."""

LONG_TAIL_SCENES = """\
- About {copies:.0%} of the scenes of each split are slightly changed copies of another scene of
  that split: `copy_of` names its file."""

CAMERA_CLASSES = f""".
Of the training digits {1 - RARE_SHARE:.0%} are of the first {COMMON} classes."""

CAMERA_SCENES = """\
- Training scenes are like the frames of a camera. About {copies:.0%} are slightly changed copies of
  the last new scene (`copy_of` names its file), and about {empty:.0%} of the new scenes are empty.
- Test scenes measure every class: all classes are equally frequent, about {test_empty:.0%} of the
  scenes are empty, and none is a copy."""


@dataclass(frozen=True, slots=True, eq=False)
class SceneMix:
    """How the scenes of one split are drawn.

    shares     [10] how often each digit is drawn, summing to 1
    copies     share of the scenes that are a jittered copy of an earlier scene of the split
    copy_last  copies are of the last new scene, as of a camera that stands still; else of any
    empty      share of the new scenes that hold no digit
    """

    shares: FloatArray
    copies: float
    copy_last: bool = False
    empty: float = 0.0
    style: SceneStyle = CROWDED


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    """The scenes of one file; `number` keeps its random streams apart from the other file's."""

    name: str
    number: int
    count: int
    glyphs: Sequence[FloatArray]
    mix: SceneMix


_FALLING = FALLOFF ** np.arange(10.0)

LONG_TAIL = SceneMix(_FALLING / _FALLING.sum(), copies=0.2)
CAMERA = SceneMix(
    np.repeat([(1 - RARE_SHARE) / COMMON, RARE_SHARE / (10 - COMMON)], [COMMON, 10 - COMMON]),
    copies=0.4,
    copy_last=True,
    empty=0.6,
    style=CAMERA_STYLE,
)
"""Set by what a choice by true class counts gains over chance: from 300 labelled images (AP50 .17)
to 400, .29 against .20 (2,000 scenes of 128 px, frozen ssdlite, 500 steps of 16, five draws).
"""

CAMERA_TEST = SceneMix(np.full(10, 0.1), copies=0.0, empty=0.1, style=CAMERA_STYLE)


def write_digits(
    out: Path,
    images: int,
    test: int | None = None,
    size: int = 160,
    seed: int = 0,
    report: Report | None = None,
    camera: bool = False,
) -> Path:
    """Write `images` training and `test` scenes (default: a third as many) of `size` pixels.

    camera: use CAMERA and CAMERA_TEST, else LONG_TAIL for both. InvalidInput for arguments that
    make no dataset. Returns `out`.
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
    train_mix, test_mix = (CAMERA, CAMERA_TEST) if camera else (LONG_TAIL, LONG_TAIL)
    done = 0
    for split in (
        _Split("train", 0, images, train_glyphs, train_mix),
        _Split("test", 1, test, test_glyphs, test_mix),
    ):
        entries: list[dict[str, Any]] = []
        scenes: list[Scene] = []
        for index, source in enumerate(_sources(split, seed)):
            scene = _scene(split, index, source, size, seed)
            entry: dict[str, Any] = {
                "file_name": _file_name(split, index),
                "width": size,
                "height": size,
            }
            if source != index:
                entry["copy_of"] = _file_name(split, source)
            Image.fromarray(scene.pixels).save(out / "images" / entry["file_name"], quality=95)
            entries.append(entry)
            scenes.append(scene)
            done += 1
            if report is not None and (done % 10 == 0 or done == images + test):
                report(Progress("COMPOSING", done, images + test))
        content = _coco_of(entries, scenes, split.name)
        (out / f"{split.name}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    readme = README.format(
        train=images,
        test=test,
        size=size,
        seed=seed,
        classes=CAMERA_CLASSES if camera else LONG_TAIL_CLASSES,
        scenes=(CAMERA_SCENES if camera else LONG_TAIL_SCENES).format(
            copies=train_mix.copies, empty=train_mix.empty, test_empty=test_mix.empty
        ),
    )
    (out / "README.md").write_text(readme, "utf-8")
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
    for index in range(split.count):
        if rng.random() < split.mix.copies and originals:
            last = len(originals) - 1
            sources.append(originals[last if split.mix.copy_last else int(rng.integers(last + 1))])
        else:
            sources.append(index)
            originals.append(index)
    return sources


def _scene(split: _Split, index: int, source: int, size: int, seed: int) -> Scene:
    mix = split.mix
    style = mix.style
    if np.random.default_rng([seed, 6, split.number, source]).random() < mix.empty:
        style = replace(style, digits=(0, 0))
    rng = np.random.default_rng([seed, 4, split.number, source])
    scene = compose(split.glyphs, mix.shares, size, rng, style)
    if source == index:
        return scene
    return jitter(scene, np.random.default_rng([seed, 5, split.number, index]))


def _file_name(split: _Split, index: int) -> str:
    return f"{split.name}_{index:05d}.jpg"


def _coco_of(
    entries: Sequence[dict[str, Any]], scenes: Sequence[Scene], split: str
) -> dict[str, Any]:
    counts = [len(scene.digits) for scene in scenes]
    truth = Annotations(
        ids=tuple(entry["file_name"] for entry in entries),
        image=np.repeat(np.arange(len(scenes)), counts),
        boxes=np.concatenate([scene.boxes for scene in scenes]),
        labels=np.concatenate([scene.digits for scene in scenes]),
        ignore=np.zeros(sum(counts), np.bool_),
    )
    return {
        "info": {"description": f"Scenes of real handwritten digits: {split}"},
        "licenses": [
            {"id": 1, "name": "CC BY 4.0", "url": "https://creativecommons.org/licenses/by/4.0/"}
        ],
        **coco_json(string.digits, entries, truth),
    }

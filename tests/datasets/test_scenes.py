from __future__ import annotations

import numpy as np
import pytest

from mgral_service.datasets.scenes import CROWDED, Scene, SceneStyle, compose, jitter
from mgral_service.domain.arrays import FloatArray

SQUARE = np.zeros((1, 8, 8))
SQUARE[0, 1:7, 1:7] = 1.0
GLYPHS = [SQUARE] * 10


def shares(digit: int) -> FloatArray:
    row: FloatArray = np.eye(10)[digit]
    return row


def scene(seed: int, size: int = 96) -> Scene:
    return compose(GLYPHS, shares(4), size, np.random.default_rng(seed))


@pytest.mark.parametrize("size", [64, 96, 160])
def test_boxes_lie_within_the_scene_and_are_as_large_as_promised(size: int) -> None:
    for seed in range(10):
        made = scene(seed, size)
        assert made.pixels.shape == (size, size, 3)
        assert len(made.boxes) == len(made.digits) <= CROWDED.digits[1]
        assert (made.digits == 4).all()
        assert (made.boxes >= 0).all()
        assert (made.boxes <= size).all()
        sides = made.boxes[:, 2:] - made.boxes[:, :2]
        assert (sides >= 2).all()
        assert (sides <= 0.65 * size).all()


def test_digits_are_of_the_classes_drawn() -> None:
    made = compose(GLYPHS, shares(7), 96, np.random.default_rng(0))
    assert set(made.digits.tolist()) == {7}


def test_a_style_says_how_many_digits_and_how_large() -> None:
    style = SceneStyle(digits=(2, 2), heights=(0.3, 0.4), fragments=(0, 0))
    for seed in range(5):
        made = compose(GLYPHS, shares(1), 96, np.random.default_rng(seed), style)
        heights = made.boxes[:, 3] - made.boxes[:, 1]
        assert len(made.digits) == 2
        assert (heights > 0.2 * 96).all()


def test_an_empty_scene_has_boxes_of_no_rows_and_can_be_jittered() -> None:
    rng = np.random.default_rng(0)
    empty = compose(GLYPHS, shares(1), 64, rng, SceneStyle(digits=(0, 0)))
    assert empty.boxes.shape == jitter(empty, rng).boxes.shape == (0, 4)


def test_the_same_seed_gives_the_same_scene() -> None:
    assert (scene(3).pixels == scene(3).pixels).all()
    assert (scene(3).pixels != scene(4).pixels).any()


def test_a_near_duplicate_is_near_and_moves_its_boxes_along() -> None:
    for seed in range(8):
        original = scene(seed)
        copy = jitter(original, np.random.default_rng(seed))
        assert (copy.pixels != original.pixels).any()
        assert (copy.digits == original.digits).all()
        assert np.abs(copy.boxes - original.boxes).max() <= 4
        assert (copy.boxes >= 0).all()
        assert (copy.boxes <= 96).all()
        thumbs = [made.pixels.reshape(6, 16, 6, 16, 3).mean((1, 3)) for made in (original, copy)]
        assert np.corrcoef(thumbs[0].ravel(), thumbs[1].ravel())[0, 1] > 0.8

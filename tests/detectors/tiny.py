"""Small images with a bright or dark square each."""

from __future__ import annotations

import numpy as np

from mgral_service.datasets.loading import ImageStore
from mgral_service.domain.boxes import Annotations

SIDE = 64
CLASSES = ("dark", "bright")


def squares(count: int, seed: int = 0) -> tuple[ImageStore, Annotations]:
    """`count` originals of 128 x 64 pixels with one square each, class 0 (dark) or 1 (bright)."""
    rng = np.random.default_rng(seed)
    pixels = np.full((count, 3, SIDE, SIDE), 128, np.uint8)
    ids = tuple(f"img_{number:02d}" for number in range(count))
    labels = np.arange(count) % 2
    boxes = np.zeros((count, 4))
    for row in range(count):
        x, y = rng.integers(4, 36, size=2)
        pixels[row, :, y : y + 20, x : x + 20] = 255 * labels[row]
        boxes[row] = (2 * x, y, 2 * (x + 20), y + 20)
    sizes = np.tile([128.0, 64.0], (count, 1))
    store = ImageStore(ids, pixels, sizes)
    return store, Annotations(
        ids, np.arange(count), boxes, labels.astype(np.int64), np.zeros(count, np.bool_)
    )

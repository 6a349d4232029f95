"""The rules a box must meet, the same for every format and for answers that come back."""

from __future__ import annotations

import math

SMALLEST_SIDE = 0.01
"""Pixels; annotation files are rounded to two decimals, a shorter side is no side."""

ROUNDING = 1e-6
"""Pixels that `x + width` may overshoot the image by floating point alone."""

Box = tuple[float, float, float, float]


def fit_box(box: Box, width: int, height: int) -> tuple[Box | None, str | None]:
    """The xyxy box clipped to its image, None if refused; and what was wrong, None if nothing."""
    if not all(math.isfinite(value) for value in box):
        return None, f"coordinates must be finite numbers, got {_written(box)}"
    x1, y1, x2, y2 = box
    if x2 - x1 < SMALLEST_SIDE or y2 - y1 < SMALLEST_SIDE:
        return None, f"zero or negative size: {_written(box)}"
    if max(x2, y2) <= 1.0 < min(width, height) and min(x1, y1) >= 0.0:
        return None, f"lies within one pixel: {_written(box)} looks normalised, write pixels"
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if clipped[2] - clipped[0] < SMALLEST_SIDE or clipped[3] - clipped[1] < SMALLEST_SIDE:
        return None, f"lies outside the image of {width} x {height}: {_written(box)}"
    moved = max(abs(old - new) for old, new in zip(box, clipped, strict=True))
    if moved <= ROUNDING:
        return clipped, None
    return clipped, f"partly outside the image of {width} x {height}: clipped"


def _written(box: Box) -> str:
    return "[" + ", ".join(f"{value:g}" for value in box) + "] (x1, y1, x2, y2)"

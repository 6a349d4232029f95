"""One scene of handwritten digits, varied in size, colour and contrast, on a cluttered ground."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mgral_service.domain.arrays import Float32Array, FloatArray, ImageArray, IntArray

MOST_OVERLAP = 0.15
"""Of the smaller of two boxes."""

INK = 0.35
"""Opacity from which a pixel belongs to a digit's box."""

Box = tuple[int, int, int, int]
"""xyxy pixels."""


@dataclass(frozen=True, slots=True)
class SceneStyle:
    """What a scene holds: each pair is the least and the most.

    digits     tried in a scene; one that finds no free place is left out
    heights    of a digit's cell, as shares of the scene's side
    fragments  pieces of digits, clutter that looks like ink
    """

    digits: tuple[int, int] = (1, 6)
    heights: tuple[float, float] = (18 / 160, 64 / 160)
    fragments: tuple[int, int] = (2, 7)


CROWDED = SceneStyle()


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """pixels [S, S, 3] RGB; boxes [K, 4] xyxy pixels, tight around the ink; digits [K] 0 to 9."""

    pixels: ImageArray
    boxes: FloatArray
    digits: IntArray


def compose(
    glyphs: Sequence[FloatArray],
    shares: FloatArray,
    size: int,
    rng: np.random.Generator,
    style: SceneStyle = CROWDED,
) -> Scene:
    """A new scene.

    glyphs  by digit, [G, 8, 8] ink in [0, 1]
    shares  [10] how often each digit is drawn, summing to 1
    size    side of the scene, pixels
    """
    canvas = _background(size, rng)
    _draw_blobs(canvas, rng)
    _draw_strokes(canvas, int(rng.integers(2, 9)), rng)
    all_glyphs = np.concatenate(list(glyphs))
    for _ in range(rng.integers(*style.fragments, endpoint=True)):
        fragment = _fragment(all_glyphs, size, style, rng)
        height, width = fragment.shape
        x, y = (int(rng.integers(max(1, size - side))) for side in (width, height))
        _paste(canvas, fragment, (x, y), rng)
    boxes: list[Box] = []
    digits: list[int] = []
    for _ in range(rng.integers(*style.digits, endpoint=True)):
        digit = int(rng.choice(len(glyphs), p=shares))
        alpha = _render(glyphs[digit][rng.integers(len(glyphs[digit]))], size, style, rng)
        corner = _free_place(alpha, size, boxes, rng)
        if corner is not None:
            x, y = corner
            _paste(canvas, alpha, corner, rng)
            boxes.append((x, y, x + alpha.shape[1], y + alpha.shape[0]))
            digits.append(digit)
    _draw_strokes(canvas, int(rng.integers(0, 3)), rng)
    grain = rng.standard_normal(canvas.shape, dtype=np.float32)
    canvas += grain * np.float32(rng.uniform(2, 11))
    if rng.random() < 0.3:
        soft = Image.fromarray(_as_bytes(canvas)).filter(
            ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.1)))
        )
        canvas = np.asarray(soft, dtype=np.float32)
    xyxy = np.array(boxes, np.float64).reshape(-1, 4)
    return Scene(_as_bytes(canvas), xyxy, np.array(digits, np.int64))


def jitter(scene: Scene, rng: np.random.Generator) -> Scene:
    """A near-duplicate: moved by up to 4 pixels, a little brighter or darker, with fresh noise."""
    size = len(scene.pixels)
    dx, dy = (int(step) for step in rng.integers(-4, 5, size=2))
    padded = np.pad(scene.pixels, ((4, 4), (4, 4), (0, 0)), mode="edge").astype(np.float32)
    moved = padded[4 - dy : 4 - dy + size, 4 - dx : 4 - dx + size]
    gains = rng.uniform(0.92, 1.08) * rng.uniform(0.98, 1.02, size=3)
    moved = moved * gains.astype(np.float32) + rng.normal(0, 3, moved.shape).astype(np.float32)
    boxes = np.clip(scene.boxes + np.array([dx, dy, dx, dy]), 0, size)
    return Scene(_as_bytes(moved), boxes, scene.digits)


def _as_bytes(canvas: Float32Array) -> ImageArray:
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


def _background(size: int, rng: np.random.Generator) -> Float32Array:
    """[S, S, 3] a colour, a slope of light and two scales of soft texture."""
    colour = rng.uniform(50, 205) + rng.normal(0, 22, size=3)
    angle = rng.uniform(0, 2 * math.pi)
    ramp = np.linspace(-1, 1, size)
    slope = math.cos(angle) * ramp[None, :] + math.sin(angle) * ramp[:, None]
    canvas = colour[None, None, :] + rng.uniform(0, 30) * slope[:, :, None]
    for cells, strength in ((int(rng.integers(3, 7)), 22.0), (int(rng.integers(12, 40)), 9.0)):
        canvas = canvas + rng.uniform(0, strength) * _texture(size, cells, rng)
    return canvas.astype(np.float32)


def _texture(size: int, cells: int, rng: np.random.Generator) -> FloatArray:
    """[S, S, 3] smooth noise of about unit variance, mostly grey."""
    grey = rng.normal(size=(cells, cells, 1))
    noise = (0.8 * grey + 0.4 * rng.normal(size=(cells, cells, 3))).astype(np.float32)
    layers = [_resized(noise[:, :, channel], size, size) for channel in range(3)]
    return np.stack(layers, axis=2).astype(np.float64)


def _draw_blobs(canvas: Float32Array, rng: np.random.Generator) -> None:
    """Soft ellipses, to 7 of them."""
    size, ground = len(canvas), canvas.mean((0, 1))
    for _ in range(int(rng.integers(0, 8))):
        x, y = rng.uniform(0, size, size=2)
        rx, ry = rng.uniform(0.02, 0.15, size=2) * size
        mask = Image.new("L", (math.ceil(2 * rx) + 24, math.ceil(2 * ry) + 24))
        ImageDraw.Draw(mask).ellipse((12, 12, 12 + 2 * rx, 12 + 2 * ry), fill=255)
        soft = mask.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.5, 4))))
        corner = (round(x - rx) - 12, round(y - ry) - 12)
        _blend(canvas, soft, corner, _ink_colour(ground, rng), rng.uniform(0.2, 0.8))


def _draw_strokes(canvas: Float32Array, count: int, rng: np.random.Generator) -> None:
    """Lines and arcs as thick as the digits' own strokes."""
    size, ground = len(canvas), canvas.mean((0, 1))
    for _ in range(count):
        width = int(rng.integers(1, max(2, size // 32) + 1))
        x, y = rng.uniform(0, size, size=2)
        reach = rng.uniform(0.03, 0.17) * size
        angle = rng.uniform(0, 2 * math.pi)
        middle = math.ceil(reach) + width + 4
        mask = Image.new("L", (2 * middle, 2 * middle))
        draw = ImageDraw.Draw(mask)
        if rng.random() < 0.5:
            dx, dy = reach * math.cos(angle), reach * math.sin(angle)
            draw.line((middle - dx, middle - dy, middle + dx, middle + dy), fill=255, width=width)
        else:
            box = (middle - reach, middle - reach / 1.5, middle + reach, middle + reach / 1.5)
            start = math.degrees(angle)
            draw.arc(box, start, start + rng.uniform(60, 250), fill=255, width=width)
        soft = mask.filter(ImageFilter.GaussianBlur(0.6))
        corner = (round(x) - middle, round(y) - middle)
        _blend(canvas, soft, corner, _ink_colour(ground, rng), rng.uniform(0.4, 0.9))


def _render(
    glyph: FloatArray, size: int, style: SceneStyle, rng: np.random.Generator
) -> FloatArray:
    """[H, W] opacity of a digit: enlarged, turned, slanted, its edge sharpened, cut to its ink."""
    least, most = style.heights
    cell = math.exp(rng.uniform(math.log(least), math.log(most))) * size
    width = max(8, round(cell * rng.uniform(0.8, 1.1)))
    height = max(8, round(cell))
    large = _resized(np.pad(glyph, 2).astype(np.float32), round(width * 1.5), round(height * 1.5))
    turned = Image.fromarray(large).rotate(rng.uniform(-18, 18), Image.Resampling.BICUBIC)
    slant = rng.uniform(-0.18, 0.18)
    affine = (1.0, slant, -slant * turned.height / 2, 0.0, 1.0, 0.0)
    slanted = turned.transform(
        turned.size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC
    )
    faint = rng.uniform(0.25, 0.4)
    alpha = np.clip((np.asarray(slanted, dtype=np.float64) - faint) / 0.35, 0, 1)
    inked = alpha > INK
    if not inked.any():
        return alpha
    rows, columns = np.flatnonzero(inked.any(1)), np.flatnonzero(inked.any(0))
    return alpha[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _fragment(
    glyphs: FloatArray, size: int, style: SceneStyle, rng: np.random.Generator
) -> FloatArray:
    """[H, W] opacity of a piece of a digit: clutter that looks like ink."""
    alpha = _render(glyphs[rng.integers(len(glyphs))], size, style, rng)
    height, width = (max(2, round(rng.uniform(0.4, 0.65) * side)) for side in alpha.shape)
    y = int(rng.integers(max(1, alpha.shape[0] - height + 1)))
    x = int(rng.integers(max(1, alpha.shape[1] - width + 1)))
    return np.rot90(alpha[y : y + height, x : x + width], int(rng.integers(4)))


def _free_place(
    alpha: FloatArray, size: int, boxes: Sequence[Box], rng: np.random.Generator
) -> tuple[int, int] | None:
    """x, y of the upper left corner, inside the scene and clear of `boxes`; None after 30 tries."""
    height, width = alpha.shape
    if height > size or width > size:
        return None
    for _ in range(30):
        x, y = int(rng.integers(size - width + 1)), int(rng.integers(size - height + 1))
        if all(_overlap((x, y, x + width, y + height), box) <= MOST_OVERLAP for box in boxes):
            return x, y
    return None


def _overlap(first: Box, second: Box) -> float:
    """Shared area as a share of the smaller box."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)]
    return max(width, 0) * max(height, 0) / min(areas)


def _paste(
    canvas: Float32Array, alpha: FloatArray, corner: tuple[int, int], rng: np.random.Generator
) -> None:
    """Ink through `alpha`, its upper left corner at x, y; its colour stands off the ground."""
    x, y = corner
    ground = canvas[y : y + alpha.shape[0], x : x + alpha.shape[1]]
    opacity = (alpha * rng.uniform(0.75, 1.0))[: ground.shape[0], : ground.shape[1], None]
    colour = _ink_colour(ground.mean((0, 1)), rng)
    ground += (opacity * (colour - ground)).astype(np.float32)


def _blend(
    canvas: Float32Array,
    mask: Image.Image,
    corner: tuple[int, int],
    colour: FloatArray,
    strength: float,
) -> None:
    """Colour through a mask whose upper left corner lies at x, y, perhaps outside the canvas."""
    x, y = corner
    patch = np.asarray(mask, dtype=np.float32)[max(0, -y) :, max(0, -x) :, None]
    ground = canvas[max(0, y) : y + mask.height, max(0, x) : x + mask.width]
    opacity = patch[: ground.shape[0], : ground.shape[1]] * np.float32(strength / 255)
    ground += opacity * (colour.astype(np.float32) - ground)


def _ink_colour(ground: Float32Array, rng: np.random.Generator) -> FloatArray:
    """[3] darker or lighter than `ground` by 35 to 130, tinted."""
    contrast, lighter = rng.uniform(35, 130), rng.random() < 0.5
    mean = float(ground.mean())
    lighter = mean + contrast <= 250 and (lighter or mean - contrast < 5)
    tint = rng.normal(0, 25, size=3)
    tint -= tint.mean()
    return np.clip(ground + (contrast if lighter else -contrast) + tint, 0, 255)


def _resized(layer: Float32Array, width: int, height: int) -> Float32Array:
    """[height, width] bicubic."""
    large = Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(large, dtype=np.float32)

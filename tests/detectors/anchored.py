"""Anchors and outputs small enough for numbers by hand and for finite differences."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from mgral_service.detectors.net import DetectorNet, RawOutput


class Anchored:
    """What objectives ask of a network. Anchor a is the square of side 2 whose left is at 2a, and
    offsets move and scale it as RetinaNet's do.
    """

    def __init__(self, levels: tuple[int, ...], softmax: bool) -> None:
        self.levels, self.softmax = levels, softmax

    def boxes(self, deltas: Tensor) -> Tensor:
        middle = 2 * torch.arange(deltas.shape[1], dtype=deltas.dtype) + 1
        centre = 2 * deltas[..., :2] + torch.stack([middle, torch.ones_like(middle)], 1)
        half = deltas[..., 2:].exp()
        return torch.cat([centre - half, centre + half], -1)

    def foreground(self, logits: Tensor) -> Tensor:
        return DetectorNet.foreground(cast(DetectorNet, self), logits)


def anchored(levels: tuple[int, ...], softmax: bool = False) -> DetectorNet:
    return cast(DetectorNet, Anchored(levels, softmax))


def raw_of(logits: Tensor, deltas: Tensor | None = None) -> RawOutput:
    """Without offsets, boxes are the anchors."""
    if deltas is None:
        deltas = torch.zeros(*logits.shape[:2], 4).to(logits)
    return RawOutput(logits, deltas, logits.mean(1))


def random_raw(images: int, anchors: int, columns: int, seed: int) -> RawOutput:
    draw = torch.Generator().manual_seed(seed)
    return raw_of(
        torch.randn(images, anchors, columns, generator=draw, dtype=torch.float64),
        0.3 * torch.randn(images, anchors, 4, generator=draw, dtype=torch.float64),
    )

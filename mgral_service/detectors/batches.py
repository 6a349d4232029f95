"""What a step trains on: which images, seen how. Every draw comes from the seed, none from another.

Labelled and unlabelled images have generators of their own, so two proxies with one seed see the
same labelled images in the same order through the same views, whatever batch is attached to either
(common random numbers).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mgral_service.datasets.augment import augment
from mgral_service.detectors.net import Targets
from mgral_service.domain.arrays import IntArray


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """pixels [L, 3, S, S] uint8 with their targets, and unlabelled [U, 3, S, S]; U may be 0."""

    pixels: Tensor
    targets: Targets
    unlabelled: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """images [B, 3, S, S] in [0, 1]; the first ones, as many as `targets`, are labelled."""

    images: Tensor
    targets: Targets


def shuffled(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Positions 0..count-1 without end, each pass in another order."""
    while True:
        yield from rng.permutation(count).tolist()


def draw_batches(train: TrainingSet, size: int, seed: int) -> Iterator[Batch]:
    """Without end: `size` labelled images, or half of each kind when there are unlabelled."""
    order, view, other_order, other_view = (
        np.random.default_rng([seed, stream]) for stream in range(4)
    )
    many = size if len(train.unlabelled) == 0 else size // 2
    rows = shuffled(len(train.pixels), order)
    other_rows = shuffled(len(train.unlabelled), other_order) if many < size else iter(())
    nothing = torch.zeros(size - many, 1, 4), torch.zeros(size - many, 1, dtype=torch.int64)
    nothing = nothing[0].to(train.pixels.device), nothing[1].to(train.pixels.device)
    while True:
        index = _take(rows, many)
        some = train.targets.rows(index)
        images, boxes, labels = augment(train.pixels[index], some.boxes, some.labels, view)
        if many < size:
            extra = train.unlabelled[_take(other_rows, size - many)]
            images = torch.cat([images, augment(extra, *nothing, other_view)[0]])
        yield Batch(images, Targets(boxes, labels))


def _take(rows: Iterator[int], count: int) -> Tensor:
    index: IntArray = np.fromiter(rows, np.int64, count)
    return torch.from_numpy(index)

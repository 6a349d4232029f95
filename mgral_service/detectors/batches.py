"""What a step trains on: which images, seen how. Every draw comes from the seed, none from another.

Labelled and unlabelled images have generators of their own, so two proxies with one seed see the
same labelled images in the same order through the same views, whatever batch is attached to either
(common random numbers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mgral_service.datasets.augment import augment
from mgral_service.detectors.net import Seen, Targets
from mgral_service.domain.arrays import IntArray
from mgral_service.domain.errors import InvalidInput


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """pixels [L, 3, S, S] uint8 with their targets, and unlabelled [U, 3, S, S]; U may be 0."""

    pixels: Tensor
    targets: Targets
    unlabelled: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """seen: images, or their features; the first ones, as many as `targets`, are labelled.

    mirrored: gives features of the mirrored images; None for images, which can be flipped.
    """

    seen: Seen
    targets: Targets
    mirrored: Callable[[], tuple[Tensor, ...]] | None = None

    @property
    def images(self) -> Tensor:
        """TypeError if only their features were kept."""
        if not isinstance(self.seen, Tensor):
            raise TypeError("this batch holds features, not images")
        return self.seen

    def both(self) -> Seen:
        """The batch, and after it the same images mirrored."""
        if isinstance(self.seen, Tensor):
            return torch.cat([self.seen, self.seen.flip(-1)])
        assert self.mirrored is not None
        pairs = zip(self.seen, self.mirrored(), strict=True)
        return tuple(torch.cat(pair) for pair in pairs)


class Order:
    """Which images come next, by seed: labelled, and in equal number unlabelled if there are any.

    Both are shuffled anew each time all have been seen. InvalidInput without a labelled image.
    """

    def __init__(self, labelled: int, unlabelled: int, size: int, seed: int) -> None:
        if labelled == 0:
            raise InvalidInput("labelled", "a detector needs one labelled image at least")
        order, view, other_order, other_view = (
            np.random.default_rng([seed, stream]) for stream in range(4)
        )
        self.view, self.other_view = view, other_view
        self._many = size if unlabelled == 0 else size // 2
        self._few = size - self._many
        self._rows = shuffled(labelled, order)
        self._other_rows = shuffled(unlabelled, other_order) if self._few else iter(())

    def take(self) -> tuple[IntArray, IntArray]:
        """Positions of the next labelled and of the next unlabelled images."""
        return _take(self._rows, self._many), _take(self._other_rows, self._few)


def shuffled(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Positions 0..count-1 without end, each pass in another order."""
    while True:
        yield from rng.permutation(count).tolist()


def draw_batches(train: TrainingSet, size: int, seed: int) -> Iterator[Batch]:
    """Without end: `size` images, each seen through a view of its own."""
    order = Order(len(train.pixels), len(train.unlabelled), size, seed)
    while True:
        rows, other = (torch.from_numpy(one) for one in order.take())
        some = train.targets.rows(rows)
        images, boxes, labels = augment(train.pixels[rows], some.boxes, some.labels, order.view)
        if len(other):
            images = torch.cat([images, _unlabelled(train.unlabelled[other], order.other_view)])
        yield Batch(images, Targets(boxes, labels))


def _unlabelled(pixels: Tensor, rng: np.random.Generator) -> Tensor:
    boxes = torch.zeros(len(pixels), 1, 4, device=pixels.device)
    return augment(pixels, boxes, boxes[..., 0].long(), rng)[0]


def _take(rows: Iterator[int], count: int) -> IntArray:
    return np.fromiter(rows, np.int64, count)

"""The batches of a training: which images, and how they are augmented.

Labelled and unlabelled images have generators of their own (common random numbers): proxies with
one seed meet the same labelled images in the same order, whatever else trains with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mgral_service.datasets.augment import augment
from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors.net import NetInput, Targets
from mgral_service.domain.arrays import IntArray
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """inputs: images, or their features; the first ones, as many as `targets`, are labelled.

    mirrored: gives features of the mirrored images; None for images, which can be flipped.
    """

    inputs: NetInput
    targets: Targets
    mirrored: Callable[[], tuple[Tensor, ...]] | None = None

    @property
    def images(self) -> Tensor:
        """TypeError for a batch of features."""
        if not isinstance(self.inputs, Tensor):
            raise TypeError("this batch holds features, not images")
        return self.inputs

    def with_mirrored(self) -> NetInput:
        """The batch, and after it the same images mirrored."""
        if isinstance(self.inputs, Tensor):
            return torch.cat([self.inputs, self.inputs.flip(-1)])
        assert self.mirrored is not None
        pairs = zip(self.inputs, self.mirrored(), strict=True)
        return tuple(torch.cat(pair) for pair in pairs)


def order(
    labelled: int, unlabelled: int, size: int, seed: int
) -> Iterator[tuple[IntArray, IntArray]]:
    """Positions of the next labelled images, and of as many unlabelled ones if there are any.

    `size` together, each pass in another order. InvalidInput without a labelled image.
    """
    if labelled == 0:
        raise InvalidInput("labelled", "a detector needs one labelled image at least")
    own_count = size // 2 if unlabelled else size
    own, other = (
        shuffled(count, np.random.default_rng([seed, stream]))
        for count, stream in ((labelled, 0), (unlabelled, 2))
    )
    while True:
        yield (
            np.fromiter(own, np.int64, own_count),
            np.fromiter(other, np.int64, size - own_count),
        )


def augmentation_rngs(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Of labelled and of unlabelled images."""
    return np.random.default_rng([seed, 1]), np.random.default_rng([seed, 3])


def shuffled(count: int, rng: np.random.Generator) -> Iterator[int]:
    """Positions 0..count-1 without end, each pass in another order; none if `count` is 0."""
    while count:
        yield from rng.permutation(count).tolist()


def draw_batches(
    images: ImageStore,
    device: torch.device,
    truth: Annotations,
    unlabelled: Sequence[str],
    size: int,
    seed: int,
) -> Iterator[Batch]:
    """Without end: `size` augmented images of `truth` (boxes in original pixels) and `unlabelled`.

    Ids are sorted, so the same images train the same weights in whatever order they are named.
    """
    labelled, unlabelled = sorted(truth.ids), sorted(unlabelled)
    pixels, unlabelled_pixels = (
        torch.from_numpy(images.pixels[images.rows(ids)]).to(device)
        for ids in (labelled, unlabelled)
    )
    targets = Targets.of(images.scale(truth), labelled, device)
    rng, unlabelled_rng = augmentation_rngs(seed)
    for own_rows, unlabelled_rows in order(len(labelled), len(unlabelled), size, seed):
        rows = torch.from_numpy(own_rows)
        drawn = targets.rows(rows)
        inputs, boxes, labels = augment(pixels[rows], drawn.boxes, drawn.labels, rng)
        if len(unlabelled_rows):
            no_boxes = torch.zeros(len(unlabelled_rows), 1, 4, device=device)
            more, _, _ = augment(
                unlabelled_pixels[torch.from_numpy(unlabelled_rows)],
                no_boxes,
                no_boxes[..., 0].long(),
                unlabelled_rng,
            )
            inputs = torch.cat([inputs, more])
        yield Batch(inputs, Targets(boxes, labels))

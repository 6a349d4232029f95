"""A frozen backbone's features, computed once, of augmented views of each image and of the image.

The views follow from the image's id: proxies share them, and dropped ones are computed again alike.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mgral_service.datasets.augment import augment
from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors.batches import Batch, augmentation_rngs, order
from mgral_service.detectors.net import DetectorNet, Targets
from mgral_service.domain.boxes import Annotations

Features = tuple[Tensor, ...]
"""[c, h, w] of an image, level by level; with a leading axis, of several."""

DTYPE = torch.float16
CAPACITY = 4 << 30  # bytes of features; those not used longest are dropped first
STREAM = 8  # of the views' random numbers; 0 to 4 are drawn by `batches` and `fit`


class FeatureCache:
    """augmentations: V views of an image. The backbone must be frozen; other weights may change."""

    def __init__(self, net: DetectorNet, images: ImageStore, augmentations: int) -> None:
        self._net, self._images, self._count = net, images, augmentations
        self._device = net.anchors.device
        self._features: OrderedDict[tuple[str, bool], Features] = OrderedDict()  # augmented or not
        self._bytes = 0
        self._targets: dict[str, tuple[Targets, Targets]] = {}

    def draw_batches(
        self, truth: Annotations, unlabelled: Sequence[str], size: int, seed: int
    ) -> Iterator[Batch]:
        """As `batches.draw_batches`; of each image one of the V views, mirrored or not."""
        labelled, unlabelled = sorted(truth.ids), sorted(unlabelled)
        rng, unlabelled_rng = augmentation_rngs(seed)
        objects = Targets.of(self._images.scale(truth), labelled, self._device)
        targets = {
            image_id: self._targets_of(image_id, objects.boxes[row], objects.labels[row])
            for row, image_id in enumerate(labelled)
        }
        for rows, unlabelled_rows in order(len(labelled), len(unlabelled), size, seed):
            drawn = [(labelled[row], self._draw(rng)) for row in rows]
            more = [(unlabelled[row], self._draw(unlabelled_rng)) for row in unlabelled_rows]
            views = [(self.views(image_id), view) for image_id, view in (*drawn, *more)]
            own = [(targets[image_id], view) for image_id, view in drawn]
            mirrors = [_row(levels, view - self._count) for levels, view in views]  # from the end
            yield Batch(
                stacked([_row(levels, view) for levels, view in views]),
                Targets(
                    pad_sequence([rows.boxes[view] for rows, view in own], batch_first=True),
                    pad_sequence([rows.labels[view] for rows, view in own], batch_first=True),
                ),
                partial(stacked, mirrors),
            )

    def views(self, image_id: str) -> Features:
        """[2 V, c, h, w] a level: the views, and after them their mirror images."""
        key = image_id, True
        if key in self._features:
            return self._used(key)
        no_boxes, no_labels = torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)
        images, _, _ = self._augmented(image_id, no_boxes, no_labels)
        with torch.no_grad():
            levels = self._net.features(torch.cat([images, images.flip(-1)]))
        return self._keep(key, tuple(level.to(DTYPE) for level in levels))

    @torch.no_grad()
    def plain(self, ids: Sequence[str]) -> Features:
        """Features of the images as they are, [B, c, h, w] a level."""
        features = {
            name: self._used(key) for name in ids if (key := (name, False)) in self._features
        }
        missing = [name for name in ids if name not in features]
        if missing:
            pixels = torch.from_numpy(self._images.pixels[self._images.rows(missing)])
            levels = self._net.features(pixels.to(self._device).float() / 255)
            for row, name in enumerate(missing):
                own = tuple(level[row].to(DTYPE) for level in levels)
                features[name] = self._keep((name, False), own)
        return stacked([features[name] for name in ids])

    def _used(self, key: tuple[str, bool]) -> Features:
        self._features.move_to_end(key)
        return self._features[key]

    def _keep(self, key: tuple[str, bool], features: Features) -> Features:
        self._features[key] = features
        self._bytes += _bytes(features)
        while self._bytes > CAPACITY and len(self._features) > 1:
            self._bytes -= _bytes(self._features.popitem(last=False)[1])
        return features

    def _targets_of(self, image_id: str, boxes: Tensor, labels: Tensor) -> Targets:
        """Boxes [2 V, G, 4] and labels [2 V, G] of the objects in views and mirrored views."""
        count = max(1, int((labels > 0).sum()))
        own = Targets(boxes[:count], labels[:count])
        cached = self._targets.get(image_id)
        if cached is None or not own.equal(cached[0]):
            _, boxes, labels = self._augmented(image_id, own.boxes, own.labels)
            both = torch.cat([boxes, mirrored(boxes, self._images.size)])
            cached = self._targets[image_id] = own, Targets(both, labels.repeat(2, 1))
        return cached[1]

    def _augmented(
        self, image_id: str, boxes: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Images [V, 3, S, S] in [0, 1], boxes [V, G, 4] and labels [V, G] of the views."""
        rng = np.random.default_rng([STREAM, zlib.crc32(image_id.encode())])
        pixels = torch.from_numpy(self._images.pixels[self._images.rows([image_id])])
        return augment(
            pixels.to(self._device).expand(self._count, -1, -1, -1),
            boxes.to(self._device).expand(self._count, -1, -1),
            labels.to(self._device).expand(self._count, -1),
            rng,
        )

    def _draw(self, rng: np.random.Generator) -> int:
        """A row of `views`: one of the V, mirrored or not."""
        return int(rng.integers(self._count)) + self._count * int(rng.integers(2))


def mirrored(boxes: Tensor, side: int) -> Tensor:
    """xyxy boxes [..., 4] in the mirror image of an image of `side` pixels."""
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([side - right, top, side - left, bottom], -1)


def stacked(images: Sequence[Features]) -> Features:
    """[B, c, h, w] level by level, in fp32 and channels last."""
    return tuple(
        torch.stack(level).float().contiguous(memory_format=torch.channels_last)
        for level in zip(*images, strict=True)
    )


def _row(levels: Features, row: int) -> Features:
    return tuple(level[row] for level in levels)


def _bytes(features: Features) -> int:
    return sum(level.nbytes for level in features)

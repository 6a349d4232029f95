"""A frozen backbone's features, made once: of a few training views an image, and of it as it is.

With them a proxy trains pyramid and head only. An image's views follow from its id, so they are the
same for every proxy of a table, whichever asks first, and can be made again when they had to make
room for others.
"""

from __future__ import annotations

import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mgral_service.datasets.augment import augment
from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors.batches import Batch, Order
from mgral_service.detectors.net import DetectorNet, Targets
from mgral_service.domain.boxes import Annotations

KEPT = torch.float16
ROOM = 4 << 30  # bytes of views' features that one bank keeps; those not used longest go first
VIEW = 8  # stream of the views' random numbers; 0 to 4 are drawn by `batches` and `fit`


@dataclass(frozen=True, slots=True, eq=False)
class Looks:
    """Features [V, c, h, w] a level of one image's views, and of their mirror images."""

    features: tuple[Tensor, ...]
    mirrored: tuple[Tensor, ...]

    @property
    def bytes(self) -> int:
        return sum(level.nbytes for level in (*self.features, *self.mirrored))


class FeatureBank:
    """views: V. The net's backbone must be frozen; its other weights may change.

    truth: annotations of the images that train with their labels, original pixels
    """

    def __init__(
        self, net: DetectorNet, images: ImageStore, truth: Annotations, views: int
    ) -> None:
        self._net, self._images, self._views = net, images, views
        self._device = net.anchors.device
        self._truth = images.scale(truth)
        self._looks: OrderedDict[str, Looks] = OrderedDict()
        self._bytes = 0
        self._targets: dict[str, Targets] = {}
        self._plain: dict[str, tuple[Tensor, ...]] = {}

    def draw_batches(
        self, labelled: Sequence[str], unlabelled: Sequence[str], size: int, seed: int
    ) -> Iterator[Batch]:
        """As `batches.draw_batches`, with one of the kept views, mirrored or not, an image."""
        order = Order(len(labelled), len(unlabelled), size, seed)
        widest = max(self.targets(name).boxes.shape[1] for name in labelled)
        while True:
            rows, other = order.take()
            drawn = [(labelled[row], *self._pick(order.view)) for row in rows]
            more = [(unlabelled[row], *self._pick(order.other_view)) for row in other]
            pairs = [self._pair(*one) for one in (*drawn, *more)]
            seen, mirrored = zip(*pairs, strict=True)
            yield Batch(
                _stacked(seen), self._targets_of(drawn, widest), partial(_stacked, mirrored)
            )

    def looks(self, name: str) -> Looks:
        """Of the image `name`."""
        if name not in self._looks:
            seen = self._views_of(name, None)[0]
            with torch.no_grad():
                both = self._net.features(torch.cat([seen, seen.flip(-1)]))
            self._looks[name] = Looks(
                tuple(level[: self._views].to(KEPT) for level in both),
                tuple(level[self._views :].to(KEPT) for level in both),
            )
            self._bytes += self._looks[name].bytes
            while self._bytes > ROOM and len(self._looks) > 1:
                self._bytes -= self._looks.popitem(last=False)[1].bytes
        self._looks.move_to_end(name)
        return self._looks[name]

    def targets(self, name: str) -> Targets:
        """Boxes [V, G, 4] and labels [V, G] in the views of an image of `truth`."""
        if name not in self._targets:
            own = Targets.of(self._truth, [name], self._device)
            self._targets[name] = Targets(*self._views_of(name, own)[1:])
        return self._targets[name]

    @torch.no_grad()
    def plain(self, ids: Sequence[str]) -> tuple[Tensor, ...]:
        """Features of the images as they are, [B, c, h, w] a level."""
        missing = [name for name in ids if name not in self._plain]
        if missing:
            pixels = torch.from_numpy(self._images.pixels[self._images.rows(missing)])
            levels = self._net.features(pixels.to(self._device).float() / 255)
            for at, name in enumerate(missing):
                self._plain[name] = tuple(level[at].to(KEPT) for level in levels)
        return _stacked([self._plain[name] for name in ids])

    def _views_of(self, name: str, own: Targets | None) -> tuple[Tensor, Tensor, Tensor]:
        """Images [V, 3, S, S] in [0, 1], boxes and labels of the image's views."""
        rng = np.random.default_rng([VIEW, zlib.crc32(name.encode())])
        pixels = torch.from_numpy(self._images.pixels[self._images.rows([name])]).to(self._device)
        if own is None:
            own = Targets(torch.zeros(1, 1, 4), torch.zeros(1, 1, dtype=torch.int64))
        return augment(
            pixels.expand(self._views, -1, -1, -1),
            own.boxes.to(self._device).expand(self._views, -1, -1),
            own.labels.to(self._device).expand(self._views, -1),
            rng,
        )

    def _pick(self, rng: np.random.Generator) -> tuple[int, bool]:
        """Which view, and whether it is mirrored."""
        return int(rng.integers(self._views)), bool(rng.integers(2))

    def _pair(
        self, name: str, at: int, turned: bool
    ) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Features of the view, and of its mirror image."""
        looks = self.looks(name)
        one = tuple(level[at] for level in looks.features)
        flip = tuple(level[at] for level in looks.mirrored)
        return (flip, one) if turned else (one, flip)

    def _targets_of(self, drawn: Sequence[tuple[str, int, bool]], widest: int) -> Targets:
        boxes = torch.zeros(len(drawn), widest, 4, device=self._device)
        labels = torch.zeros(len(drawn), widest, dtype=torch.int64, device=self._device)
        for row, (name, at, turned) in enumerate(drawn):
            own = self.targets(name)
            count = own.labels.shape[1]
            box = own.boxes[at]
            boxes[row, :count] = _mirrored(box, self._images.size) if turned else box
            labels[row, :count] = own.labels[at]
        return Targets(boxes, labels)


def _mirrored(boxes: Tensor, side: int) -> Tensor:
    left, top, right, bottom = boxes.unbind(-1)
    return torch.stack([side - right, top, side - left, bottom], -1)


def _stacked(images: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Level by level, in fp32 and channels last."""
    return tuple(
        torch.stack(level).float().contiguous(memory_format=torch.channels_last)
        for level in zip(*images, strict=True)
    )

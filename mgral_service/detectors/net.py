"""What every detector shares: raw outputs, padded targets, anchors, what `fit` asks of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList

from mgral_service.domain.boxes import Annotations

NetInput = Tensor | tuple[Tensor, ...]
"""Images [B, 3, S, S] in [0, 1], or the backbone's features of them, level by level."""


@dataclass(frozen=True, slots=True, eq=False)
class RawOutput:
    """One forward pass, shared by losses, strategies and the embedding.

    logits  [B, A, K] class scores: K = C + 1, background first, for a softmax; K = C for sigmoids
    deltas  [B, A, 4] box offsets to the anchors (dx, dy, dw, dh) in the network's own encoding
    pooled  [B, D] the image's embedding
    """

    logits: Tensor
    deltas: Tensor
    pooled: Tensor

    def rows(self, start: int, stop: int) -> RawOutput:
        """The same for images start..stop."""
        return RawOutput(self.logits[start:stop], self.deltas[start:stop], self.pooled[start:stop])

    def float(self) -> RawOutput:
        """In fp32, whatever the convolutions computed in."""
        return RawOutput(self.logits.float(), self.deltas.float(), self.pooled.float())


@dataclass(frozen=True, slots=True, eq=False)
class Targets:
    """Ground truth of B images, padded to the G objects of the fullest.

    boxes   [B, G, 4] xyxy pixels at training size
    labels  [B, G] class position + 1; 0 marks padding
    """

    boxes: Tensor
    labels: Tensor

    def rows(self, index: Tensor) -> Targets:
        """Those images, in that order."""
        return Targets(self.boxes[index], self.labels[index])

    def equal(self, other: Targets) -> bool:
        """Whether shapes and values are the same."""
        return torch.equal(self.boxes, other.boxes) and torch.equal(self.labels, other.labels)

    @classmethod
    def of(cls, truth: Annotations, ids: Sequence[str], device: torch.device) -> Targets:
        """Of `ids`, in that order, from boxes in training pixels; `ignore` rows are left out."""
        truth = truth.subset(ids)
        trained = ~truth.ignore
        image = torch.from_numpy(truth.image[trained])
        count = torch.bincount(image, minlength=len(ids))
        slot = torch.arange(len(image)) - (count.cumsum(0) - count)[image]
        widest = max([1, *count.tolist()])
        boxes = torch.zeros(len(ids), widest, 4)
        labels = torch.zeros(len(ids), widest, dtype=torch.int64)
        boxes[image, slot] = torch.from_numpy(truth.boxes[trained]).float()
        labels[image, slot] = torch.from_numpy(truth.labels[trained]) + 1
        return cls(boxes.to(device), labels.to(device))


class DetectorNet(nn.Module, ABC):
    """A dense single-stage detector on square images, built with the initial weights of seed 0.

    classes  C, without background
    size     training side in pixels
    freeze   the backbone keeps its initial weights and gets no gradient
    softmax  classes and background compete by a softmax; else each class has a sigmoid of its own
    halves   bf16 convolutions are faster on processors that compute in it
    winograd  its 3x3 convolutions pay for the compilation of a kernel: see winograd.py
    embedding  D of RawOutput.pooled
    losses   localisation's and classification's, of logits, deltas, targets and anchors
    coder    the encoding of boxes as offsets to anchors
    anchors  [A, 4] xyxy pixels
    levels   anchors of each level of the pyramid, finest first
    mirror   [A] the anchor that each becomes under a horizontal flip; its own inverse
    shift    [A] what the flip adds to dx; 0 where anchors lie symmetrically in the image
    """

    classes: int
    size: int
    freeze: bool
    softmax: bool = True
    halves: bool = True
    winograd: bool = False
    embedding: int
    losses: Callable[[Tensor, Tensor, Targets, Tensor], tuple[Tensor, Tensor]]
    coder: BoxCoder
    anchors: Tensor
    levels: tuple[int, ...]
    mirror: Tensor
    shift: Tensor

    @abstractmethod
    def initialise(self, seed: int) -> None:
        """Back to the initial weights: pretrained ones, and others drawn from `seed` alone."""

    @abstractmethod
    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """By torchvision's names, all or the backbone's; InvalidInput if a tensor does not fit."""

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """Groups of trained weights, each with its share of the learning rate."""
        return [([weight for weight in self.parameters() if weight.requires_grad], 1.0)]

    @abstractmethod
    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """The backbone's, of images [B, 3, S, S] in [0, 1]; without gradient if it is frozen."""

    @abstractmethod
    def predict(self, features: tuple[Tensor, ...]) -> RawOutput:
        """Pyramid and head on the backbone's features."""

    def forward(self, inputs: NetInput) -> RawOutput:
        return self.predict(self.features(inputs) if isinstance(inputs, Tensor) else inputs)

    def supervised_loss(self, raw: RawOutput, targets: Targets) -> Tensor:
        """L_S, a scalar: localisation and classification, over the number of matched anchors."""
        boxes, classes = self.losses(raw.logits, raw.deltas, targets, self.anchors)
        return boxes + classes

    def place_anchors(self, generator: Any, sides: list[int]) -> None:
        """Set `anchors` and what follows from them: torchvision's generator on square maps."""
        per_cell = generator.num_anchors_per_location()
        self.levels = tuple(side**2 * count for side, count in zip(sides, per_cell, strict=True))
        blank = torch.zeros(1, 3, self.size, self.size)
        maps = [torch.zeros(1, 1, side, side) for side in sides]
        (anchors,) = generator(ImageList(blank, [(self.size, self.size)]), maps)
        mirror = mirror_of(sides, per_cell)
        centre, width = anchors[:, 0::2].mean(1), anchors[:, 2] - anchors[:, 0]
        shift = self.coder.weights[0] * (self.size - centre[mirror] - centre) / width
        for name, buffer in (("anchors", anchors), ("mirror", mirror), ("shift", shift)):
            self.register_buffer(name, buffer, persistent=False)

    def boxes(self, deltas: Tensor) -> Tensor:
        """[B, A, 4] xyxy pixels that offsets [B, A, 4] to the anchors stand for, not clipped."""
        anchors = self.anchors.repeat(len(deltas), 1)
        boxes: Tensor = self.coder.decode_single(deltas.flatten(0, 1), anchors)
        return boxes.view_as(deltas)

    def probabilities(self, logits: Tensor) -> Tensor:
        """[B, A, C + 1] background first; of sigmoids, what the likeliest class leaves."""
        if self.softmax:
            return logits.softmax(-1)
        classes = logits.sigmoid()
        return torch.cat([1 - classes.amax(-1, keepdim=True), classes], -1)

    def foreground(self, logits: Tensor) -> Tensor:
        """[B, A] probability of the likeliest class that is not background."""
        if self.softmax:
            return logits.softmax(-1)[..., 1:].amax(-1)
        return logits.amax(-1).sigmoid()

    def decode(self, raw: RawOutput) -> tuple[Tensor, Tensor]:
        """Boxes [B, A, 4] in xyxy pixels, clipped to the image, and probabilities [B, A, C + 1]."""
        return self.boxes(raw.deltas).clamp(0, self.size), self.probabilities(raw.logits)

    def in_precision(self, precision: str) -> torch.autocast:
        """The context in which to run it: "fp32", "bf16", or "auto" as the hardware has it."""
        device = self.anchors.device.type
        faster = self.halves and computes_in_bf16(device)
        return torch.autocast(
            device, torch.bfloat16, precision == "bf16" or (precision == "auto" and faster)
        )


def computes_in_bf16(device: str) -> bool:
    """Whether it has units for bf16: AMX on a processor, tensor cores on a GPU."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    return device == "cpu" and torch.cpu._is_amx_tile_supported()


def mirror_of(sides: Sequence[int], per_cell: Sequence[int]) -> Tensor:
    """[A] each anchor's partner under a flip; anchors run over (row, column, shape) by level."""
    start, partners = 0, []
    for side, shapes in zip(sides, per_cell, strict=True):
        count = side * side * shapes
        level = torch.arange(start, start + count).view(side, side, shapes)
        partners.append(level.flip(1).flatten())
        start += count
    return torch.cat(partners)


def redraw(part: nn.Module, spread: Callable[[Tensor], Tensor]) -> None:
    """New weights of convolutions, drawn on the processor as a generator asks; biases 0."""
    for module in part.modules():
        if isinstance(module, nn.Conv2d):
            with torch.no_grad():
                module.weight.copy_(spread(torch.empty(module.weight.shape)))
            if module.bias is not None:
                nn.init.zeros_(module.bias)

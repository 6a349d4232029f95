"""What every detector shares: raw outputs, padded targets, and what `fit` asks of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgral_service.domain.boxes import Annotations


@dataclass(frozen=True, slots=True, eq=False)
class RawOutput:
    """One forward pass, taken once and shared by losses, strategies and the embedding.

    logits  [B, A, C + 1] class scores before softmax, background first
    deltas  [B, A, 4] box offsets to the anchors (dx, dy, dw, dh) in the network's own encoding
    pooled  [B, D] the image's embedding
    """

    logits: Tensor
    deltas: Tensor
    pooled: Tensor

    def rows(self, start: int, stop: int) -> RawOutput:
        """The same for images start..stop."""
        return RawOutput(self.logits[start:stop], self.deltas[start:stop], self.pooled[start:stop])


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

    @classmethod
    def of(cls, truth: Annotations, ids: Sequence[str], device: torch.device) -> Targets:
        """Of `ids`, in that order, from boxes in training pixels; `ignore` rows are left out."""
        some = truth.subset(ids)
        keep = ~some.ignore
        image = torch.from_numpy(some.image[keep])
        count = torch.bincount(image, minlength=len(ids))
        slot = torch.arange(len(image)) - (count.cumsum(0) - count)[image]
        widest = max([1, *count.tolist()])
        boxes = torch.zeros(len(ids), widest, 4)
        labels = torch.zeros(len(ids), widest, dtype=torch.int64)
        boxes[image, slot] = torch.from_numpy(some.boxes[keep]).float()
        labels[image, slot] = torch.from_numpy(some.labels[keep]) + 1
        return cls(boxes.to(device), labels.to(device))


class DetectorNet(nn.Module, ABC):
    """A dense single-stage detector on square images.

    classes  C, without background
    size     training side in pixels
    embedding  D of RawOutput.pooled
    anchors  [A, 4] xyxy pixels
    mirror   [A] the anchor that each one becomes under a horizontal flip; its own inverse
    """

    classes: int
    size: int
    embedding: int
    anchors: Tensor
    mirror: Tensor

    @abstractmethod
    def initialise(self, seed: int) -> None:
        """Back to the initial weights: pretrained ones, and others drawn from `seed` alone."""

    @abstractmethod
    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """What is trained, in groups, each with its share of the recipe's learning rate."""

    @abstractmethod
    def forward(self, images: Tensor) -> RawOutput:
        """images [B, 3, S, S] in [0, 1]."""

    @abstractmethod
    def supervised_loss(self, raw: RawOutput, targets: Targets) -> Tensor:
        """L_S, a scalar: localisation and classification, over the number of matched anchors."""

    @abstractmethod
    def decode(self, raw: RawOutput) -> tuple[Tensor, Tensor]:
        """Boxes [B, A, 4] in xyxy pixels, clipped to the image, and probabilities [B, A, C + 1]."""

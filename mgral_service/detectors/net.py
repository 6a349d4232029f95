"""What every detector shares: raw outputs, padded targets, and what `fit` asks of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgral_service.domain.boxes import Annotations

Seen = Tensor | tuple[Tensor, ...]
"""Images [B, 3, S, S] in [0, 1], or the backbone's features of them, level by level."""


@dataclass(frozen=True, slots=True, eq=False)
class RawOutput:
    """One forward pass, taken once and shared by losses, strategies and the embedding.

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

    def anchors(self, start: int, stop: int) -> RawOutput:
        """The same for anchors start..stop."""
        return RawOutput(self.logits[:, start:stop], self.deltas[:, start:stop], self.pooled)

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
    freeze   the backbone keeps its initial weights and gets no gradient
    softmax  classes and background compete by a softmax; else each class has a sigmoid of its own
    halves   bf16 convolutions are faster on processors that compute in it
    winograd  its 3x3 convolutions pay for the compilation of a kernel: see winograd.py
    embedding  D of RawOutput.pooled
    anchors  [A, 4] xyxy pixels
    levels   anchors of each level of the pyramid, finest first
    mirror   [A] the anchor that each one becomes under a horizontal flip; its own inverse
    shift    [A] what the flip adds to dx, where anchors do not lie symmetrically in the image
    """

    classes: int
    size: int
    freeze: bool
    softmax: bool = True
    halves: bool = True
    winograd: bool = False
    embedding: int
    anchors: Tensor
    levels: tuple[int, ...]
    mirror: Tensor
    shift: Tensor

    @abstractmethod
    def initialise(self, seed: int) -> None:
        """Back to the initial weights: pretrained ones, and others drawn from `seed` alone."""

    @abstractmethod
    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """Take initial weights under torchvision's names, of the whole detector or of its backbone;
        InvalidInput names the first that is missing or of another shape.
        """

    @abstractmethod
    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        """What is trained, in groups, each with its share of the recipe's learning rate."""

    @abstractmethod
    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """The backbone's, of images [B, 3, S, S] in [0, 1]; without gradient if it is frozen."""

    @abstractmethod
    def predict(self, features: tuple[Tensor, ...]) -> RawOutput:
        """What pyramid and head make of them."""

    def forward(self, seen: Seen) -> RawOutput:
        return self.predict(self.features(seen) if isinstance(seen, Tensor) else seen)

    @abstractmethod
    def supervised_loss(self, raw: RawOutput, targets: Targets) -> Tensor:
        """L_S, a scalar: localisation and classification, over the number of matched anchors."""

    @abstractmethod
    def boxes(self, deltas: Tensor) -> Tensor:
        """[B, A, 4] xyxy pixels that offsets [B, A, 4] to the anchors stand for, not clipped."""

    def probabilities(self, logits: Tensor) -> Tensor:
        """[B, A, C + 1] background first; of sigmoids, what the likeliest class leaves."""
        if self.softmax:
            return logits.softmax(-1)
        some = logits.sigmoid()
        return torch.cat([1 - some.amax(-1, keepdim=True), some], -1)

    def foreground(self, logits: Tensor) -> Tensor:
        """[B, A] probability of the likeliest class that is not background."""
        if self.softmax:
            return logits.softmax(-1)[..., 1:].amax(-1)
        return logits.amax(-1).sigmoid()

    def decode(self, raw: RawOutput) -> tuple[Tensor, Tensor]:
        """Boxes [B, A, 4] in xyxy pixels, clipped to the image, and probabilities [B, A, C + 1]."""
        return self.boxes(raw.deltas).clamp(0, self.size), self.probabilities(raw.logits)

    def in_precision(self, wanted: str) -> torch.autocast:
        """The context in which to run it: "fp32", "bf16", or "auto" as the hardware has it."""
        device = self.anchors.device.type
        pays = self.halves and computes_in_bf16(device)
        return torch.autocast(
            device, torch.bfloat16, wanted == "bf16" or (wanted == "auto" and pays)
        )


def computes_in_bf16(device: str) -> bool:
    """Units of its own for it: AMX on a processor, tensor cores on a GPU."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    return device == "cpu" and torch.cpu._is_amx_tile_supported()

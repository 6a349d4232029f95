"""SSD300 on VGG16 (Liu et al. 2016), torchvision's network: 26.3 M parameters at 20 classes.

The global average of the fourth level (256 channels, 5 x 5 cells) is the image's embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList

from mgral_service.detectors.matching import BOX_WEIGHTS, decoded, mirror_of, shift_of, ssd_losses
from mgral_service.detectors.net import DetectorNet, RawOutput, Targets
from mgral_service.detectors.weights import take

SIZE = 300
SIDES = [38, 19, 10, 5, 3, 1]
PER_CELL = [4, 6, 6, 6, 4, 4]
EMBEDDED = 3  # the level whose average is the embedding
CONV5 = ("backbone.extra.0.1.", "backbone.extra.0.3.", "backbone.extra.0.5.")
SCALE = 20.0  # of conv4_3 after L2 normalisation
MEAN = (0.48235, 0.45882, 0.40784)  # of the pixels; VGG's weights want 255 for a deviation of 1


class Ssd300(DetectorNet):
    """`freeze`: VGG16 keeps its initial weights up to conv5_3 and gets no gradient."""

    winograd = True
    mean: Tensor

    def __init__(self, classes: int, size: int, freeze: bool) -> None:
        super().__init__()
        self.classes, self.size, self.freeze = classes, size, freeze
        whole = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes + 1)
        self.backbone, self.head = whole.backbone, whole.head
        self.embedding = 256
        self.levels = tuple(side * side * few for side, few in zip(SIDES, PER_CELL, strict=True))
        self.coder = BoxCoder(BOX_WEIGHTS)
        blank = torch.zeros(1, 3, SIZE, SIZE)
        maps = [torch.zeros(1, 1, side, side) for side in SIDES]
        (anchors,) = whole.anchor_generator(ImageList(blank, [(SIZE, SIZE)]), maps)
        self.register_buffer("anchors", anchors, persistent=False)
        mirror = mirror_of(SIDES, PER_CELL)
        self.register_buffer("mirror", mirror, persistent=False)
        shift = shift_of(anchors, mirror, size, BOX_WEIGHTS[0])
        self.register_buffer("shift", shift, persistent=False)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self._pretrained: dict[str, Tensor] = {}
        if freeze:
            self.backbone.features.requires_grad_(False)
            self.backbone.extra[0][:-1].requires_grad_(False)
        self.initialise(0)

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """A whole SSD300's, or VGG16's convolutions: `features.0.weight` to `features.28.bias`."""
        if "backbone.scale_weight" in weights:
            take(self, weights)
            self._pretrained = {name: one.clone() for name, one in self.state_dict().items()}
            return
        take(self.backbone.features, weights, "features.")
        for at, theirs in zip((1, 3, 5), (24, 26, 28), strict=True):
            take(self.backbone.extra[0][at], weights, f"features.{theirs}.")
        self._pretrained = {
            name: one.clone()
            for name, one in self.state_dict().items()
            if name.startswith(("backbone.features.", *CONV5))
        }

    @torch.no_grad()
    def initialise(self, seed: int) -> None:
        """Drawn on the processor wherever the weights lie: a generator is of one device."""
        draw = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                drawn = torch.empty(module.weight.shape)
                nn.init.xavier_uniform_(drawn, generator=draw)
                module.weight.copy_(drawn)
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.backbone.scale_weight, SCALE)
        self.load_state_dict(self._pretrained, strict=False)

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        return [([one for one in self.parameters() if one.requires_grad], 1.0)]

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        """conv4_3 [B, 512, 38, 38] and conv5_3 [B, 512, 19, 19]."""
        scaled = ((images - self.mean) * 255).contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            fourth = self.backbone.features(scaled)
            return fourth, self.backbone.extra[0][:-1](fourth)

    def predict(self, features: tuple[Tensor, ...]) -> RawOutput:
        fourth, fifth = features
        scale = self.backbone.scale_weight.view(1, -1, 1, 1)
        levels = [scale * F.normalize(fourth), self.backbone.extra[0][-1](fifth)]
        for block in self.backbone.extra[1:]:
            levels += [block(levels[-1])]
        out = self.head(levels)
        pooled = levels[EMBEDDED].mean((2, 3))
        return RawOutput(out["cls_logits"], out["bbox_regression"], pooled)

    def supervised_loss(self, raw: RawOutput, targets: Targets) -> Tensor:
        boxes, classes = ssd_losses(raw.logits, raw.deltas, targets, self.anchors)
        return boxes + classes

    def boxes(self, deltas: Tensor) -> Tensor:
        return decoded(self.coder, deltas, self.anchors)

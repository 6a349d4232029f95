"""RetinaNet's matching and losses over a whole batch; equal to torchvision's, image by image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import encode_boxes
from torchvision.ops import sigmoid_focal_loss

from mgral_service.detectors.matching import object_iou
from mgral_service.detectors.net import Targets

POSITIVE_IOU = 0.5
NEGATIVE_IOU = 0.4
BACKGROUND, BETWEEN = -1, -2


def assign(targets: Targets, anchors: Tensor) -> Tensor:
    """[B, A] the object each anchor answers for, BACKGROUND, or BETWEEN: it trains no class.

    An anchor takes the object it overlaps most if by 0.5 or more, and whatever the overlap if no
    anchor overlaps one of the objects more than it does.
    """
    iou = object_iou(targets, anchors)
    best, nearest = iou.max(1)
    rest = torch.where(best >= NEGATIVE_IOU, BETWEEN, BACKGROUND)
    highest = iou.amax(2, keepdim=True)
    forced = ((iou == highest) & (highest > 0)).any(1)
    return torch.where(forced | (best >= POSITIVE_IOU), nearest, rest)


def focal_losses(
    logits: Tensor, deltas: Tensor, targets: Targets, anchors: Tensor
) -> tuple[Tensor, Tensor]:
    """(localisation, classification): L1; focal loss with alpha .25 and gamma 2 (Lin et al. 2017).

    logits [B, A, C], deltas [B, A, 4], anchors [A, 4]. Both are means over the images of sums over
    each one's matched anchors, or over 1 where there is none.
    """
    matched = assign(targets, anchors)
    positive = matched >= 0
    count = positive.sum(1).clamp(min=1)
    image, anchor = positive.nonzero(as_tuple=True)
    objects = matched[image, anchor]
    expected = encode_boxes(
        targets.boxes[image, objects], anchors[anchor], torch.ones(4, device=anchors.device)
    )
    distance = F.l1_loss(deltas[image, anchor], expected, reduction="none").sum(-1)
    present = torch.zeros_like(logits)
    present[image, anchor, targets.labels[image, objects] - 1] = 1.0
    focal = sigmoid_focal_loss(logits, present).sum(-1)
    classes = torch.where(matched == BETWEEN, 0, focal).sum(1) / count
    return (distance / count[image]).sum() / len(logits), classes.mean()

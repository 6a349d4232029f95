"""SSD's matching and loss over a whole batch; equal to torchvision's, image by image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import encode_boxes

from mgral_service.detectors.net import Targets

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Variances .1 and .2 of SSD (Liu et al. 2016), as torchvision's BoxCoder takes them."""

POSITIVE_IOU = 0.5
NEGATIVES_PER_POSITIVE = 3.0


def pairwise_iou(boxes: Tensor, anchors: Tensor) -> Tensor:
    """[B, G, A] from boxes [B, G, 4] and anchors [A, 4], xyxy pixels."""
    left, top, right, bottom = (side.contiguous() for side in boxes[..., None].unbind(2))
    start_x, start_y, end_x, end_y = (side.contiguous() for side in anchors.unbind(1))
    wide = torch.minimum(right, end_x).sub_(torch.maximum(left, start_x)).clamp_(min=0)
    high = torch.minimum(bottom, end_y).sub_(torch.maximum(top, start_y)).clamp_(min=0)
    overlap = wide.mul_(high)
    areas = (right - left) * (bottom - top) + (end_x - start_x) * (end_y - start_y)
    return overlap / areas.sub_(overlap)


def object_iou(targets: Targets, anchors: Tensor) -> Tensor:
    """[B, G, A] of the objects and the anchors [A, 4]; -1 for padding."""
    iou = pairwise_iou(targets.boxes, anchors)
    return iou.masked_fill(targets.labels[:, :, None] == 0, -1.0)


def match(targets: Targets, anchors: Tensor) -> Tensor:
    """[B, A] the object each anchor answers for, -1 for none (torchvision's SSDMatcher).

    An anchor takes the object it overlaps most if by 0.5 or more; each object's best anchor takes
    that object whatever the overlap (the later object, if two share a best anchor).
    """
    real = targets.labels > 0
    iou = object_iou(targets, anchors)
    best, matched = iou.max(1)
    matched = torch.where(best >= POSITIVE_IOU, matched, -1)
    owner = torch.arange(real.shape[1], device=real.device).expand_as(real)
    forced = torch.full_like(matched, -1).scatter_reduce(
        1, iou.argmax(2), torch.where(real, owner, -1), "amax"
    )
    return torch.where(forced >= 0, forced, matched)


def ssd_losses(
    logits: Tensor, deltas: Tensor, targets: Targets, anchors: Tensor
) -> tuple[Tensor, Tensor]:
    """(localisation, classification): smooth L1; cross entropy, three hard negatives a positive.

    logits [B, A, C + 1], deltas [B, A, 4], anchors [A, 4]. Both are per matched anchor.
    """
    matched = match(targets, anchors)
    positive = matched >= 0
    count = positive.sum().clamp(min=1)
    image, anchor = positive.nonzero(as_tuple=True)
    boxes = targets.boxes[image, matched[image, anchor]]
    weights = torch.tensor(BOX_WEIGHTS, device=anchors.device)
    expected = encode_boxes(boxes, anchors[anchor], weights)
    box_loss = F.smooth_l1_loss(deltas[image, anchor], expected, reduction="sum")

    label = torch.where(positive, targets.labels.gather(1, matched.clamp(min=0)), 0)
    entropy = F.cross_entropy(logits.flatten(0, 1), label.flatten(), reduction="none")
    entropy = entropy.view_as(label)
    hardness = entropy.detach().masked_fill(positive, -torch.inf)
    order = hardness.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, places)
    negative = rank < NEGATIVES_PER_POSITIVE * positive.sum(1, keepdim=True)
    # an image with more than a quarter of its anchors positive counts those twice, as torchvision
    # does
    weight = positive.to(entropy) + negative.to(entropy)
    return box_loss / count, (entropy * weight).sum() / count

"""One pass over images: embeddings, and detections in pixels of the original image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors.net import DetectorNet, Seen
from mgral_service.domain.boxes import Detections, PoolObservation

CHUNK = 32


@dataclass(frozen=True, slots=True)
class Suppression:
    """Which boxes count as detections.

    score        least probability of a class
    iou          of two boxes of one class that overlap by more, the better stays
    candidates   best boxes an image that enter non-maximum suppression
    most         detections an image
    """

    score: float = 0.05
    iou: float = 0.45
    candidates: int = 400
    most: int = 100


LOOSE = Suppression(score=0.01)
"""For mAP, which wants the tail of the ranking as well."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Detections of a chunk, ordered by image and then by score, in training pixels."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    probs: Tensor


def suppress(boxes: Tensor, probs: Tensor, rule: Suppression) -> Found:
    """Non-maximum suppression per image and class: boxes [B, A, 4], probs [B, A, C + 1]."""
    count, anchors, classes = len(boxes), boxes.shape[1], probs.shape[2] - 1
    flat = probs[..., 1:].reshape(count, anchors * classes)
    scores, at = flat.topk(min(rule.candidates, flat.shape[1]), dim=1)
    image, rank = (scores >= rule.score).nonzero(as_tuple=True)
    scores, at = scores[image, rank], at[image, rank]
    anchor, label = at // classes, at % classes
    chosen = boxes[image, anchor]
    ends = torch.bincount(image, minlength=count).cumsum(0).tolist()
    kept: list[Tensor] = []
    for start, end in pairwise([0, *ends]):  # few boxes: all classes in one call of torchvision's
        of_image = batched_nms(chosen[start:end], scores[start:end], label[start:end], rule.iou)
        kept.append(start + of_image[: rule.most])
    keep = torch.cat(kept)
    image = image[keep]
    whole = probs[image, anchor[keep]]
    whole = whole / whole.sum(-1, keepdim=True)  # sigmoids need not sum to 1
    return Found(image, chosen[keep], label[keep], scores[keep], whole)


@torch.inference_mode()
def observe(
    net: DetectorNet,
    images: ImageStore,
    ids: Sequence[str],
    rule: Suppression,
    report: Callable[[int], None] | None = None,
    features: Callable[[Sequence[str]], Seen] | None = None,
    precision: str = "auto",
) -> PoolObservation:
    """Look at `ids`; report(images done) after each chunk. The net must be in evaluation mode.

    features: of images by id, where they were kept
    """
    device = net.anchors.device
    rows = images.rows(ids)
    pooled: list[Tensor] = [torch.zeros(0, net.embedding)]
    parts = [_nothing(net.classes)]
    for start in range(0, len(ids), CHUNK):
        seen: Seen
        if features is None:
            pixels = torch.from_numpy(images.pixels[rows[start : start + CHUNK]]).to(device)
            seen = pixels.float() / 255
        else:
            seen = features(ids[start : start + CHUNK])
        with net.in_precision(precision):
            raw = net(seen).float()
        found = suppress(*net.decode(raw), rule)
        parts.append(replace(found, image=found.image + start))
        pooled.append(raw.pooled.cpu())
        if report is not None:
            report(min(start + CHUNK, len(ids)))
    detections = Detections(
        tuple(ids),
        torch.cat([part.image.cpu() for part in parts]).numpy(),
        torch.cat([part.boxes.cpu() for part in parts]).double().numpy(),
        torch.cat([part.labels.cpu() for part in parts]).numpy(),
        torch.cat([part.scores.cpu() for part in parts]).double().numpy(),
        torch.cat([part.probs.cpu() for part in parts]).double().numpy(),
    )
    embeddings = torch.cat(pooled).double().numpy()
    return PoolObservation(tuple(ids), embeddings, images.unscale(detections))


def _nothing(classes: int) -> Found:
    index = torch.zeros(0, dtype=torch.int64)
    return Found(index, torch.zeros(0, 4), index, torch.zeros(0), torch.zeros(0, classes + 1))

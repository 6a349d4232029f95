"""One pass over images: embeddings, and detections in pixels of the original image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from mgral_service.detectors.net import DetectorNet
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
    """Detections of a chunk of images, ordered by image and then by score: torch rows at training size."""

    image: Tensor
    boxes: Tensor
    labels: Tensor
    scores: Tensor
    probs: Tensor


def suppress(boxes: Tensor, probs: Tensor, rule: Suppression) -> Found:
    """Non-maximum suppression per image and class over a whole chunk: boxes [B, A, 4], probs [B, A, C + 1]."""
    count, anchors, classes = len(boxes), boxes.shape[1], probs.shape[2] - 1
    flat = probs[..., 1:].reshape(count, anchors * classes)
    scores, at = flat.topk(min(rule.candidates, flat.shape[1]), dim=1)
    image, rank = (scores >= rule.score).nonzero(as_tuple=True)
    scores, at = scores[image, rank], at[image, rank]
    anchor, label = at // classes, at % classes
    chosen = boxes[image, anchor]
    keep = batched_nms(chosen, scores, image * classes + label, rule.iou)
    keep = keep[torch.argsort(image[keep], stable=True)]
    per_image = torch.bincount(image[keep], minlength=count)
    place = torch.arange(len(keep), device=keep.device)
    place = place - (per_image.cumsum(0) - per_image)[image[keep]]
    keep = keep[place < rule.most]
    image = image[keep]
    return Found(image, chosen[keep], label[keep], scores[keep], probs[image, anchor[keep]])


@torch.inference_mode()
def observe(
    net: DetectorNet,
    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    sizes: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    ids: Sequence[str],
    rule: Suppression,
    report: Callable[[int], None] | None = None,
) -> PoolObservation:
    """Look at pixels [N, 3, S, S] of images whose original (width, height) are sizes [N, 2].

    report(images done) after each chunk. The net must be in evaluation mode.
    """
    device = net.anchors.device
    parts: list[Found] = []
    pooled: list[Tensor] = []
    for start in range(0, len(ids), CHUNK):
        images = torch.from_numpy(pixels[start : start + CHUNK]).to(device).float() / 255
        raw = net(images)
        found = suppress(*net.decode(raw), rule)
        parts.append(
            Found(found.image + start, found.boxes, found.labels, found.scores, found.probs)
        )
        pooled.append(raw.pooled)
        if report is not None:
            report(min(start + CHUNK, len(ids)))
    if not parts:
        none = Detections(
            (),
            np.zeros(0, np.int64),
            np.zeros((0, 4)),
            np.zeros(0, np.int64),
            np.zeros(0),
            np.zeros((0, net.classes + 1)),
        )
        return PoolObservation((), np.zeros((0, net.embedding)), none)
    image = torch.cat([part.image for part in parts]).cpu().numpy()
    scale = np.tile(np.asarray(sizes, np.float64) / net.size, 2)
    detections = Detections(
        tuple(ids),
        image,
        torch.cat([part.boxes for part in parts]).double().cpu().numpy() * scale[image],
        torch.cat([part.labels for part in parts]).cpu().numpy(),
        torch.cat([part.scores for part in parts]).double().cpu().numpy(),
        torch.cat([part.probs for part in parts]).double().cpu().numpy(),
    )
    return PoolObservation(tuple(ids), torch.cat(pooled).double().cpu().numpy(), detections)

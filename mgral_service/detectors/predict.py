"""One pass over images: embeddings, and detections in pixels of the original image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import batched_nms

from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors.net import DetectorNet, NetInput
from mgral_service.domain.boxes import Detections, PoolPredictions

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


def suppress(boxes: Tensor, probs: Tensor, rule: Suppression, ids: Sequence[str]) -> Detections:
    """NMS per image and class of boxes [B, A, 4] in training pixels and probs [B, A, C + 1]."""
    count, anchors, classes = len(boxes), boxes.shape[1], probs.shape[2] - 1
    flat = probs[..., 1:].reshape(count, anchors * classes)
    scores, position = flat.topk(min(rule.candidates, flat.shape[1]), dim=1)
    image, rank = (scores >= rule.score).nonzero(as_tuple=True)
    scores, position = scores[image, rank], position[image, rank]
    anchor, label = position // classes, position % classes
    candidates = boxes[image, anchor]
    ends = torch.bincount(image, minlength=count).cumsum(0).tolist()
    best: list[Tensor] = []
    for start, end in pairwise([0, *ends]):  # few boxes: all classes in one call of torchvision's
        part = slice(start, end)
        rows = batched_nms(candidates[part], scores[part], label[part], rule.iou)
        best.append(start + rows[: rule.most])
    keep = torch.cat(best)
    image = image[keep]
    distribution = probs[image, anchor[keep]]
    distribution = distribution / distribution.sum(-1, keepdim=True)  # sigmoids need not sum to 1
    return Detections(
        tuple(ids),
        image.cpu().numpy(),
        candidates[keep].cpu().double().numpy(),
        label[keep].cpu().numpy(),
        scores[keep].cpu().double().numpy(),
        distribution.cpu().double().numpy(),
    )


@torch.inference_mode()
def predict(
    net: DetectorNet,
    images: ImageStore,
    ids: Sequence[str],
    rule: Suppression,
    report: Callable[[int], None] | None = None,
    features: Callable[[Sequence[str]], NetInput] | None = None,
    precision: str = "auto",
) -> PoolPredictions:
    """Of `ids`, in that order, by a net in evaluation mode; report(images done) after each chunk.

    features: of images by id, where they are cached
    """
    pooled = [torch.zeros(0, net.embedding)]
    empty, blank = np.zeros(0, np.int64), np.zeros((0, net.classes + 1))
    chunks = [Detections((), empty, np.zeros((0, 4)), empty, np.zeros(0), blank)]
    for start in range(0, len(ids), CHUNK):
        chunk = ids[start : start + CHUNK]
        inputs: NetInput
        if features is None:
            pixels = torch.from_numpy(images.pixels[images.rows(chunk)])
            inputs = pixels.to(net.anchors.device).float() / 255
        else:
            inputs = features(chunk)
        with net.in_precision(precision):
            raw = net(inputs).float()
        chunks.append(suppress(*net.decode(raw), rule, chunk))
        pooled.append(raw.pooled.cpu())
        if report is not None:
            report(start + len(chunk))
    detections = images.unscale(Detections.concat(chunks))
    return PoolPredictions(tuple(ids), torch.cat(pooled).double().numpy(), detections)

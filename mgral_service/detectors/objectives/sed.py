"""Scale-equivalent distillation, after SED (Guo et al. 2022). No code of it was published; this is
the buildable equivalent: its three ideas, with losses of our choice where the paper's are unknown.

Consistent across scales: the student sees x and x at half the side. A level of the half-size image
has the grid of the next coarser level of x, and anchors of half the size: P3..P6 of the one
correspond to P4..P7 of the other, anchor by anchor. Soft targets: the teacher, the averaged
weights, sees x once; its probabilities and boxes are the targets as they are. Emphasis on likely
foreground: only the 1 % of the batch's anchors T where the teacher's likeliest class has the
highest probability t_a, weighted by it.

    D(S) = sum_{a in T} t_a (4 Q(q_a, p_a) + 1 - GIoU_a) / max(1, sum_{a in T} t_a)
    L_U  = D(x, all levels) + D(half-size x, P3..P6 against the teacher's P4..P7)

with Q and GIoU of `teacher`, q the teacher's probabilities and p the student's; both boxes are
decoded on the anchors of x. D is 0 where student and teacher agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.net import DetectorNet, RawOutput
from mgral_service.detectors.objectives.consistency import ConsistencyLoss, Views
from mgral_service.detectors.objectives.dense_teacher import (
    CLASS_WEIGHT,
    activated,
    likeliest,
    quality_focal,
)


def distance(
    net: DetectorNet, student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]
) -> Tensor:
    """D, a scalar: of logits [B, A, K] and boxes [B, A, 4], in xyxy pixels, of the same anchors."""
    score = net.foreground(teacher[0])
    chosen = likeliest(score)
    (logits, boxes), (target, target_boxes) = (
        (part[chosen] for part in pair) for pair in (student, teacher)
    )
    classes = quality_focal(activated(target, net.softmax), logits, net.softmax)
    places = generalized_box_iou_loss(boxes, target_boxes)
    weight = score[chosen]
    total: Tensor = (weight * (CLASS_WEIGHT * classes + places)).sum()
    return total / weight.sum().clamp(min=1)


class SedLoss(ConsistencyLoss):
    """Two views: x, and x at half the side."""

    needs_teacher = makes_images = True

    def views(self, batch: Batch, rng: np.random.Generator) -> Views:
        return Views((batch.images, F.avg_pool2d(batch.images, 2)))

    def loss(
        self, net: DetectorNet, raw: Sequence[RawOutput], views: Views, teacher: RawOutput | None
    ) -> Tensor:
        assert teacher is not None
        full, half = raw
        finest, rest = net.levels[0], sum(net.levels[1:])
        boxes = net.boxes(teacher.deltas)
        whole = distance(net, (full.logits, net.boxes(full.deltas)), (teacher.logits, boxes))
        deltas = F.pad(half.deltas[:, :rest], (0, 0, finest, 0))
        small = half.logits[:, :rest], net.boxes(deltas)[:, finest:]
        return whole + distance(net, small, (teacher.logits[:, finest:], boxes[:, finest:]))

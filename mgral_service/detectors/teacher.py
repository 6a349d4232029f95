"""Dense Teacher (Zhou et al. 2022): the averaged weights teach, anchor by anchor, without pseudo
boxes.

t_a: what the teacher gives the likeliest class of anchor a that is not background. T: the 1 % of
the batch's anchors where it is highest. With probabilities p of the student,

    L_U = (4 sum_a Q(q_a, p_a) + sum_{a in T} t_a (1 - GIoU_a)) / max(1, sum_{a in T} t_a)

where q_a are the teacher's probabilities for a in T and "background" elsewhere, and GIoU_a is that
of the two decoded boxes. Sigmoids: Q = sum_c |q_c - p_c|^2 BCE(p_c, q_c), the quality focal loss.
A softmax has one cross entropy for all classes, hence one factor: Q = (1/2 sum_c |q_c - p_c|^2)
(-sum_c q_c log p_c); the half makes it the sigmoid's for one class and the background. The public
code divides by the sum alone; the 1 keeps a teacher that sees nothing from making the rest large.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.consistency import Views
from mgral_service.detectors.net import DetectorNet, RawOutput

SHARE = 0.01
CLASS_WEIGHT = 4.0


def likeliest(score: Tensor) -> Tensor:
    """[B, A] whether a score [B, A] is among the highest 1 % of all, of which there is one."""
    count = max(1, int(SHARE * score.numel()))
    mask = torch.zeros(score.numel(), dtype=torch.bool, device=score.device)
    mask[score.flatten().topk(count).indices] = True
    return mask.view_as(score)


def activated(logits: Tensor, softmax: bool) -> Tensor:
    """Probabilities [..., K] of logits [..., K]."""
    return logits.softmax(-1) if softmax else logits.sigmoid()


def quality_focal(target: Tensor, logits: Tensor, softmax: bool) -> Tensor:
    """Q [...] of logits [..., K] toward probabilities `target` [..., K]; 0 where they agree."""
    gap = (target - activated(logits, softmax)).square()
    if softmax:
        return 0.5 * gap.sum(-1) * -(target * logits.log_softmax(-1)).sum(-1)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (gap * entropy).sum(-1)


def apart(boxes: Tensor, others: Tensor) -> Tensor:
    """[N] 1 - GIoU, row by row, of boxes [N, 4] in xyxy pixels: from 0 to 2."""
    loss: Tensor = generalized_box_iou_loss(boxes, others)
    return loss


class DenseTeacherLoss:
    """One view: the batch, or its features."""

    taught = True

    def views(self, batch: Batch, rng: np.random.Generator) -> Views:
        return Views((batch.seen,))

    def loss(
        self, net: DetectorNet, raw: Sequence[RawOutput], views: Views, teacher: RawOutput | None
    ) -> Tensor:
        assert teacher is not None
        (student,) = raw
        score = net.foreground(teacher.logits)
        chosen = likeliest(score)
        background = torch.zeros_like(teacher.logits[0, 0])
        background[0] = float(net.softmax)
        target = torch.where(chosen[..., None], activated(teacher.logits, net.softmax), background)
        classes = quality_focal(target, student.logits, net.softmax).sum()
        places = apart(net.boxes(student.deltas)[chosen], net.boxes(teacher.deltas)[chosen])
        weight = score[chosen]
        return (CLASS_WEIGHT * classes + (weight * places).sum()) / weight.sum().clamp(min=1)

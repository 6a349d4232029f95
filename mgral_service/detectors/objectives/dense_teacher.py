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

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from mgral_service.detectors.net import DetectorNet, RawOutput
from mgral_service.detectors.objectives.consistency import ConsistencyLoss, Views

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


class DenseTeacherLoss(ConsistencyLoss):
    """One view: the batch, or its features."""

    needs_teacher = True

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
        places = generalized_box_iou_loss(
            net.boxes(student.deltas)[chosen], net.boxes(teacher.deltas)[chosen]
        )
        weight = score[chosen]
        total: Tensor = CLASS_WEIGHT * classes + (weight * places).sum()
        return total / weight.sum().clamp(min=1)

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
from dataclasses import dataclass

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.consistency import Views
from mgral_service.detectors.net import DetectorNet, RawOutput
from mgral_service.detectors.teacher import CLASS_WEIGHT, activated, apart, likeliest, quality_focal


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Logits [B, A, K] and boxes [B, A, 4] of the same anchors, in xyxy pixels of the full size."""

    logits: Tensor
    boxes: Tensor

    @classmethod
    def of(cls, net: DetectorNet, raw: RawOutput) -> Placed:
        return cls(raw.logits, net.boxes(raw.deltas))

    @classmethod
    def of_half(cls, net: DetectorNet, raw: RawOutput) -> Placed:
        """Of images of half the side, on all levels of the full size but the finest."""
        finest, rest = net.levels[0], sum(net.levels[1:])
        deltas = F.pad(raw.deltas[:, :rest], (0, 0, finest, 0))
        return cls(raw.logits[:, :rest], net.boxes(deltas)[:, finest:])

    def coarse(self, net: DetectorNet) -> Placed:
        """Without the finest level."""
        finest = net.levels[0]
        return Placed(self.logits[:, finest:], self.boxes[:, finest:])


def distance(net: DetectorNet, student: Placed, teacher: Placed) -> Tensor:
    """D, a scalar."""
    score = net.foreground(teacher.logits)
    chosen = likeliest(score)
    target = activated(teacher.logits[chosen], net.softmax)
    classes = quality_focal(target, student.logits[chosen], net.softmax)
    places = apart(student.boxes[chosen], teacher.boxes[chosen])
    weight = score[chosen]
    return (weight * (CLASS_WEIGHT * classes + places)).sum() / weight.sum().clamp(min=1)


class SedLoss:
    """Two views: x, and x at half the side."""

    taught = True

    def views(self, batch: Batch, rng: np.random.Generator) -> Views:
        return Views((batch.images, F.avg_pool2d(batch.images, 2)))

    def loss(
        self, net: DetectorNet, raw: Sequence[RawOutput], views: Views, teacher: RawOutput | None
    ) -> Tensor:
        assert teacher is not None
        full, half = raw
        target = Placed.of(net, teacher)
        there = distance(net, Placed.of(net, full), target)
        return there + distance(net, Placed.of_half(net, half), target.coarse(net))

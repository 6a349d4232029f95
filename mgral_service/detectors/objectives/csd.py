"""CSD, the consistency loss L_U of SSD (Jeong et al. 2019): an image and its horizontal flip.

Predictions: p of a batch x; p^f of its flip x^f, brought back onto x's anchors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.net import DetectorNet, RawOutput
from mgral_service.detectors.objectives.consistency import ConsistencyLoss, Views

EPSILON = 1e-7


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """Probabilities [B, A, C + 1] and localisations [B, A, 4] of one view."""

    probs: Tensor
    loc: Tensor

    @classmethod
    def of(cls, raw: RawOutput) -> Aligned:
        return cls(raw.logits.softmax(-1) + EPSILON, raw.deltas)

    def detach(self) -> Aligned:
        return Aligned(self.probs.detach(), self.loc.detach())

    def foreground(self) -> Tensor:
        """[B, A] background elimination: some class is likelier than the background."""
        return self.probs[..., 1:].amax(-1) > self.probs[..., 0]

    def flipped(self, net: DetectorNet) -> Aligned:
        """On the mirrored anchors: their order, dx of the other sign, and the anchors' shift."""
        loc = self.loc[:, net.mirror] * self.loc.new_tensor([-1.0, 1.0, 1.0, 1.0])
        return Aligned(self.probs[:, net.mirror], loc + F.pad(net.shift[:, None], (0, 3)).to(loc))


def divergence(target: Tensor, given: Tensor) -> Tensor:
    """KL(target || given) over the classes [B, A]; both hold EPSILON already."""
    return (target * (target.log() - given.log())).sum(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values [B, A] where mask [B, A]; 0 for an empty mask."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def csd(p: Aligned, flip: Aligned, p_target: Aligned, flip_target: Aligned) -> Tensor:
    """Classes and places of x and of its flip agree where x shows foreground (CSD, Eq. 3-6).

    Targets are the same predictions without gradient; the localisation of both sides learns.
    """
    classes = divergence(flip_target.probs, p.probs) + divergence(p_target.probs, flip.probs)
    place = (p.loc - flip.loc).square().mean(-1)
    return masked_mean(0.5 * classes + place, p_target.foreground())


class CsdLoss(ConsistencyLoss):
    """Two views: x and x^f."""

    def views(self, batch: Batch, rng: np.random.Generator) -> Views:
        return Views((batch.with_mirrored(),))

    def loss(
        self, net: DetectorNet, raw: Sequence[RawOutput], views: Views, teacher: RawOutput | None
    ) -> Tensor:
        (both,) = raw
        count = len(both.logits) // 2
        p = Aligned.of(both.rows(0, count))
        flip = Aligned.of(both.rows(count, 2 * count)).flipped(net)
        return csd(p, flip, p.detach(), flip.detach())

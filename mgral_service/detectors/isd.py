"""Consistency losses L_U of SSD: CSD (Jeong et al. 2019) and ISD (Jeong et al. 2021).

Views of a batch x: its horizontal flip x^f, y = x^f with its two halves swapped, and
x^m = lambda x + (1 - lambda) y. Predictions: p of x; p^f of x^f brought back onto x's anchors;
q of y; m of x^m. Localisations are named alike.

ISD's public code takes the type-IIb localisation from x^f *brought back*, so x^m is pulled toward
mirrored offsets; here it is y's own, as the paper's equation says.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.consistency import Views
from mgral_service.detectors.net import DetectorNet, RawOutput

EPSILON = 1e-7
MIX = 100.0
TYPE_ONE_WEIGHT = 0.1


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
        """On the anchors of the mirrored image: another order, and dx of the other sign, from the
        place to which the anchor is mirrored.
        """
        sign = self.loc.new_tensor([-1.0, 1.0, 1.0, 1.0])
        there = self.loc[:, net.mirror] * sign
        moved = F.pad(net.shift[:, None], (0, 3)).to(there)
        return Aligned(self.probs[:, net.mirror], there + moved)

    def half_swapped(self) -> Aligned:
        return Aligned(half_swapped(self.probs), half_swapped(self.loc))


def half_swapped(batch: Tensor) -> Tensor:
    """The two halves of the batch exchanged."""
    return batch.roll(-(len(batch) // 2), 0)


def divergence(target: Tensor, given: Tensor) -> Tensor:
    """KL(target || given) over the classes [B, A]; both hold EPSILON already."""
    return (target * (target.log() - given.log())).sum(-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values [B, A] where mask [B, A]; 0 for an empty mask."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def csd(p: Aligned, flip: Aligned, still_p: Aligned, still_flip: Aligned) -> Tensor:
    """Classes and places of x and of its flip agree where x shows foreground (CSD, Eq. 3-6).

    `still_...` are the same predictions without gradient; the localisation of both sides learns.
    """
    classes = 0.5 * (divergence(still_flip.probs, p.probs) + divergence(still_p.probs, flip.probs))
    place = (p.loc - flip.loc).square().mean(-1)
    return masked_mean(classes + place, still_p.foreground())


def interpolation(
    p: Aligned, q: Aligned, mix: Aligned, still: tuple[Aligned, Aligned, Aligned], blend: float
) -> Tensor:
    """0.1 type I (foreground in both) + type IIa (in x only) + type IIb (in y only) of ISD.

    still: p, q and mix without gradient
    """
    still_p, still_q, still_mix = still
    in_x, in_y = still_p.foreground(), still_q.foreground()
    blended = blend * p.probs + (1 - blend) * q.probs
    still_blended = blend * still_p.probs + (1 - blend) * still_q.probs
    both = 0.5 * (divergence(still_mix.probs, blended) + divergence(still_blended, mix.probs))
    total = TYPE_ONE_WEIGHT * masked_mean(both, in_x & in_y)
    for one, mask in ((still_p, in_x & ~in_y), (still_q, ~in_x & in_y)):
        place = (mix.loc - one.loc).square().mean(-1)
        total = total + masked_mean(divergence(one.probs, mix.probs) + place, mask)
    return total


class CsdLoss:
    """Two views: x and x^f."""

    taught = False

    def views(self, batch: Batch, rng: np.random.Generator) -> Views:
        return Views((batch.both(),))

    def loss(
        self, net: DetectorNet, raw: Sequence[RawOutput], views: Views, teacher: RawOutput | None
    ) -> Tensor:
        (both,) = raw
        count = len(both.logits) // 2
        p = Aligned.of(both.rows(0, count))
        flip = Aligned.of(both.rows(count, 2 * count)).flipped(net)
        return csd(p, flip, p.detach(), flip.detach())


class IsdLoss:
    """Three views: x, x^f and x^m, with one lambda ~ Beta(100, 100) a step."""

    taught = False

    def views(self, batch: Batch, rng: np.random.Generator) -> Views:
        blend = float(rng.beta(MIX, MIX))
        images = batch.images
        flip = images.flip(-1)
        mixed = blend * images + (1 - blend) * half_swapped(flip)
        return Views((torch.cat([images, flip, mixed]),), blend)

    def loss(
        self, net: DetectorNet, raw: Sequence[RawOutput], views: Views, teacher: RawOutput | None
    ) -> Tensor:
        (three,) = raw
        count = len(three.logits) // 3
        p, bare, mix = (
            Aligned.of(three.rows(start, start + count)) for start in (0, count, 2 * count)
        )
        flip, q = bare.flipped(net), bare.half_swapped()
        still = (p.detach(), q.detach(), mix.detach())
        return csd(p, flip, still[0], flip.detach()) + interpolation(p, q, mix, still, views.blend)

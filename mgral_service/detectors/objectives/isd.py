"""ISD, the consistency loss L_U of SSD on mixtures of images (Jeong et al. 2021), on top of CSD.

Views of a batch x: its horizontal flip x^f, y = x^f with its two halves swapped, and
x^m = lambda x + (1 - lambda) y. Predictions: p of x; p^f of x^f brought back onto x's anchors;
q of y; m of x^m. Localisations are named alike.

ISD's public code takes the type-IIb localisation from x^f *brought back*, so x^m is pulled toward
mirrored offsets; here it is y's own, as the paper's equation says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.net import DetectorNet, RawOutput
from mgral_service.detectors.objectives.consistency import ConsistencyLoss, Views
from mgral_service.detectors.objectives.csd import Aligned, csd, divergence, masked_mean

MIX = 100.0
TYPE_ONE_WEIGHT = 0.1


def half_swapped(batch: Tensor) -> Tensor:
    """The two halves of the batch exchanged."""
    return batch.roll(-(len(batch) // 2), 0)


def interpolation(
    p: Aligned, q: Aligned, mix: Aligned, targets: tuple[Aligned, Aligned, Aligned], blend: float
) -> Tensor:
    """0.1 type I (foreground in both) + type IIa (in x only) + type IIb (in y only) of ISD.

    targets: p, q and mix without gradient
    """
    p_target, q_target, mix_target = targets
    in_x, in_y = p_target.foreground(), q_target.foreground()
    blended = blend * p.probs + (1 - blend) * q.probs
    blended_target = blend * p_target.probs + (1 - blend) * q_target.probs
    both = divergence(mix_target.probs, blended) + divergence(blended_target, mix.probs)
    total = TYPE_ONE_WEIGHT * masked_mean(0.5 * both, in_x & in_y)
    for target, mask in ((p_target, in_x & ~in_y), (q_target, ~in_x & in_y)):
        place = (mix.loc - target.loc).square().mean(-1)
        total = total + masked_mean(divergence(target.probs, mix.probs) + place, mask)
    return total


class IsdLoss(ConsistencyLoss):
    """Three views: x, x^f and x^m, with one lambda ~ Beta(100, 100) a step."""

    makes_images = True

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
        flip = bare.flipped(net)
        q = Aligned(half_swapped(bare.probs), half_swapped(bare.loc))
        targets = (p.detach(), q.detach(), mix.detach())
        consistency = csd(p, flip, targets[0], flip.detach())
        return consistency + interpolation(p, q, mix, targets, views.blend)

"""ISD: its views, numbers by hand, and the gradient that finite differences give."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mgral_service.detectors.net import RawOutput
from mgral_service.detectors.objectives.consistency import Views
from mgral_service.detectors.objectives.csd import Aligned, csd
from mgral_service.detectors.objectives.isd import IsdLoss, half_swapped, interpolation
from tests.detectors.objectives.test_csd import NET, batch_of, images_of, random_raw, raw_of


def test_type_two_b_draws_the_mix_toward_the_swapped_flip_and_not_its_mirror_image() -> None:
    background, object_ = [0.9, 0.1], [0.1, 0.9]
    p = Aligned(torch.tensor([[background]]), torch.zeros(1, 1, 4))
    q = Aligned(torch.tensor([[object_]]), torch.tensor([[[0.5, 0.0, 0.0, 0.0]]]))
    mix = Aligned(torch.tensor([[object_]]), torch.tensor([[[0.5, 0.0, 0.0, 0.0]]]))
    mirrored = Aligned(mix.probs, torch.tensor([[[-0.5, 0.0, 0.0, 0.0]]]))
    assert float(interpolation(p, q, mix, (p, q, mix), 0.5)) == pytest.approx(0.0)
    assert float(interpolation(p, q, mirrored, (p, q, mirrored), 0.5)) == pytest.approx(0.25)


def test_views_are_the_batch_its_flip_and_the_blend_with_the_swapped_flip() -> None:
    images = torch.rand(4, 3, 8, 8)
    views = IsdLoss().views(batch_of(images), np.random.default_rng(3))
    x, flip, mixed = images_of(views).chunk(3)
    assert 0.3 < views.blend < 0.7
    assert torch.equal(x, images)
    assert torch.equal(flip, images.flip(-1))
    y = torch.stack([flip[2], flip[3], flip[0], flip[1]])
    assert torch.equal(half_swapped(flip), y)
    torch.testing.assert_close(mixed, views.blend * x + (1 - views.blend) * y)


def aligned(raw: RawOutput) -> tuple[Aligned, Aligned, Aligned, Aligned]:
    """p, its flip, q and the mix of six views."""
    p, bare, mix = (Aligned.of(raw.rows(start, start + 2)) for start in (0, 2, 4))
    q = Aligned(half_swapped(bare.probs), half_swapped(bare.loc))
    return p, bare.flipped(NET), q, mix


def value_with_targets(logits: Tensor, deltas: Tensor, targets: RawOutput, blend: float) -> Tensor:
    """ISD's loss with its constants taken from `targets` instead of from the argument itself."""
    p, flip, q, mix = aligned(raw_of(logits, deltas))
    fixed_p, fixed_flip, fixed_q, fixed_mix = aligned(targets)
    consistency = csd(p, flip, fixed_p, fixed_flip)
    return consistency + interpolation(p, q, mix, (fixed_p, fixed_q, fixed_mix), blend)


def test_the_gradient_is_that_of_finite_differences_with_the_targets_held() -> None:
    raw = random_raw(6, seed=1)
    masks = Aligned.of(raw).foreground()
    assert masks.any()
    assert not masks.all()
    logits, deltas = (part.clone().requires_grad_() for part in (raw.logits, raw.deltas))
    views = Views((torch.zeros(6, 3, 2, 2),), 0.4)
    loss = IsdLoss().loss(NET, (raw_of(logits, deltas),), views, None)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(value_with_targets(raw.logits, raw.deltas, raw, 0.4)) == pytest.approx(
        float(loss.detach())
    )
    for which, part in enumerate((logits, deltas)):
        assert part.grad is not None
        numeric = torch.zeros_like(part.grad)
        for index in range(part.numel()):
            ends = []
            for sign in (1, -1):
                inputs = [raw.logits.clone(), raw.deltas.clone()]
                inputs[which].view(-1)[index] += sign * 1e-6
                ends.append(float(value_with_targets(inputs[0], inputs[1], raw, 0.4)))
            numeric.view(-1)[index] = (ends[0] - ends[1]) / 2e-6
        torch.testing.assert_close(part.grad, numeric, atol=1e-7, rtol=1e-5)

"""CSD and ISD: zero where they must be, numbers by hand, and the gradient that finite differences
give.
"""

from math import log
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from mgral_service.detectors import OBJECTIVES
from mgral_service.detectors.batches import Batch
from mgral_service.detectors.consistency import Views
from mgral_service.detectors.isd import (
    Aligned,
    CsdLoss,
    IsdLoss,
    csd,
    half_swapped,
    interpolation,
)
from mgral_service.detectors.net import DetectorNet, RawOutput, Targets

ANCHORS, CLASSES = 6, 2
MIRROR = torch.tensor([1, 0, 3, 2, 5, 4])
NET = cast(DetectorNet, SimpleNamespace(mirror=MIRROR, shift=torch.zeros(ANCHORS)))
FLIP_BASED = ("isd", "csd")


def batch_of(images: Tensor) -> Batch:
    """Without labels."""
    return Batch(images, Targets(torch.zeros(0, 1, 4), torch.zeros(0, 1, dtype=torch.int64)))


def seen_in(views: Views) -> Tensor:
    """The images of the one forward pass."""
    (images,) = views.inputs
    assert isinstance(images, Tensor)
    return images


def raw_of(logits: Tensor, deltas: Tensor) -> RawOutput:
    return RawOutput(logits, deltas, logits.mean(1))


def random_raw(images: int, seed: int = 0) -> RawOutput:
    draw = torch.Generator().manual_seed(seed)
    return raw_of(
        torch.randn(images, ANCHORS, CLASSES + 1, generator=draw, dtype=torch.float64),
        torch.randn(images, ANCHORS, 4, generator=draw, dtype=torch.float64),
    )


def symmetric_raw(views: int) -> RawOutput:
    """One mirror-symmetric prediction, shared by all images and views."""
    logits = torch.tensor([[0.0, 2.0, 1.0], [2.0, 0.0, 0.0], [0.0, 0.0, 3.0]]).double()
    deltas = torch.tensor([[0.0, 0.3, -0.2, 0.1]]).double().repeat(ANCHORS, 1)
    logits = logits.repeat_interleave(2, 0)
    return raw_of(logits.repeat(4 * views, 1, 1), deltas.repeat(4 * views, 1, 1))


@pytest.mark.parametrize("name", FLIP_BASED)
def test_symmetric_images_and_shared_predictions_have_no_loss(name: str) -> None:
    objective = OBJECTIVES[name]()
    column = torch.rand(4, 3, 8, 1)
    views = objective.views(batch_of(column.expand(4, 3, 8, 8)), np.random.default_rng(0))
    raw = symmetric_raw(len(seen_in(views)) // 4)
    assert float(objective.loss(NET, (raw,), views, None)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", FLIP_BASED)
def test_where_all_is_background_the_loss_is_zero_and_so_is_its_gradient(name: str) -> None:
    objective = OBJECTIVES[name]()
    views = objective.views(batch_of(torch.rand(4, 3, 8, 8)), np.random.default_rng(0))
    raw = random_raw(len(seen_in(views)))
    raw.logits[..., 0] = 50.0
    raw.logits.requires_grad_(), raw.deltas.requires_grad_()
    loss = objective.loss(NET, (raw,), views, None)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert raw.logits.grad is not None
    assert raw.deltas.grad is not None
    assert not raw.logits.grad.any()
    assert not raw.deltas.grad.any()


def test_csd_of_one_foreground_anchor_by_hand() -> None:
    p = Aligned(torch.tensor([[[0.25, 0.75], [0.9, 0.1]]]), torch.zeros(1, 2, 4))
    flip = Aligned(torch.tensor([[[0.5, 0.5], [0.2, 0.8]]]), torch.full((1, 2, 4), 2.0))
    one_way = 0.5 * log(0.5 / 0.25) + 0.5 * log(0.5 / 0.75)
    other_way = 0.25 * log(0.25 / 0.5) + 0.75 * log(0.75 / 0.5)
    expected = 0.5 * (one_way + other_way) + 0.25 * 4 * 2.0**2
    assert float(csd(p, flip, p, flip)) == pytest.approx(expected, rel=1e-6)


def test_type_two_b_draws_the_mix_toward_the_swapped_flip_and_not_its_mirror_image() -> None:
    background, object_ = [0.9, 0.1], [0.1, 0.9]
    p = Aligned(torch.tensor([[background]]), torch.zeros(1, 1, 4))
    q = Aligned(torch.tensor([[object_]]), torch.tensor([[[0.5, 0.0, 0.0, 0.0]]]))
    mix = Aligned(torch.tensor([[object_]]), torch.tensor([[[0.5, 0.0, 0.0, 0.0]]]))
    mirrored = Aligned(mix.probs, torch.tensor([[[-0.5, 0.0, 0.0, 0.0]]]))
    assert float(interpolation(p, q, mix, (p, q, mix), 0.5)) == pytest.approx(0.0)
    assert float(interpolation(p, q, mirrored, (p, q, mirrored), 0.5)) == pytest.approx(0.25)


def test_flipping_back_permutes_anchors_and_turns_dx_only() -> None:
    some = Aligned.of(random_raw(2))
    there = some.flipped(NET)
    torch.testing.assert_close(there.loc[:, 0, 0], -some.loc[:, 1, 0])
    torch.testing.assert_close(there.loc[:, 0, 1:], some.loc[:, 1, 1:])
    torch.testing.assert_close(there.flipped(NET).loc, some.loc)


def test_views_are_the_batch_its_flip_and_the_blend_with_the_swapped_flip() -> None:
    images = torch.rand(4, 3, 8, 8)
    views = IsdLoss().views(batch_of(images), np.random.default_rng(3))
    x, flip, mixed = seen_in(views).chunk(3)
    assert 0.3 < views.blend < 0.7
    assert torch.equal(x, images)
    assert torch.equal(flip, images.flip(-1))
    y = torch.stack([flip[2], flip[3], flip[0], flip[1]])
    assert torch.equal(half_swapped(flip), y)
    torch.testing.assert_close(mixed, views.blend * x + (1 - views.blend) * y)


def value_with_still(logits: Tensor, deltas: Tensor, still: RawOutput, blend: float) -> Tensor:
    """ISD's loss with its constants taken from `still` instead of from the argument itself."""
    raw = raw_of(logits, deltas)
    p, bare, mix = (Aligned.of(raw.rows(at, at + 2)) for at in (0, 2, 4))
    flip, q = bare.flipped(NET), bare.half_swapped()
    sp, sbare, smix = (Aligned.of(still.rows(at, at + 2)) for at in (0, 2, 4))
    sflip, sq = sbare.flipped(NET), sbare.half_swapped()
    return csd(p, flip, sp, sflip) + interpolation(p, q, mix, (sp, sq, smix), blend)


def test_the_gradient_is_that_of_finite_differences_with_the_targets_held() -> None:
    raw = random_raw(6, seed=1)
    masks = Aligned.of(raw).foreground()
    assert masks.any()
    assert not masks.all()
    logits, deltas = (part.clone().requires_grad_() for part in (raw.logits, raw.deltas))
    views = Views((torch.zeros(6, 3, 2, 2),), 0.4)
    loss = IsdLoss().loss(NET, (raw_of(logits, deltas),), views, None)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(value_with_still(raw.logits, raw.deltas, raw, 0.4)) == pytest.approx(
        float(loss.detach())
    )
    for which, part in enumerate((logits, deltas)):
        assert part.grad is not None
        numeric = torch.zeros_like(part.grad)
        for at in range(part.numel()):
            ends = []
            for sign in (1, -1):
                inputs = [raw.logits.clone(), raw.deltas.clone()]
                inputs[which].view(-1)[at] += sign * 1e-6
                ends.append(float(value_with_still(inputs[0], inputs[1], raw, 0.4)))
            numeric.view(-1)[at] = (ends[0] - ends[1]) / 2e-6
        torch.testing.assert_close(part.grad, numeric, atol=1e-7, rtol=1e-5)


def test_csd_looks_at_the_batch_and_its_flip() -> None:
    images = torch.rand(4, 3, 8, 8)
    x, flip = seen_in(CsdLoss().views(batch_of(images), np.random.default_rng(0))).chunk(2)
    assert torch.equal(x, images)
    assert torch.equal(flip, images.flip(-1))

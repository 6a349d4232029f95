"""SED: which anchors of the two scales correspond, zero where they agree, finite differences."""

from itertools import repeat

import numpy as np
import pytest
import torch
from torch import Tensor

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.fit import fit
from mgral_service.detectors.net import RawOutput, Targets
from mgral_service.detectors.nets.retinanet import RetinaNet
from mgral_service.detectors.objectives import dense_teacher as teacher
from mgral_service.detectors.objectives.consistency import Views
from mgral_service.detectors.objectives.sed import SedLoss
from mgral_service.domain.specs import DetectorSpec
from tests.detectors.anchored import anchored, random_raw, raw_of
from tests.detectors.objectives.test_dense_teacher import batch_of, logit

LEVELS = (6, 3, 2)
FINEST, WHOLE, HALF = 6, 11, 7
"""Anchors: of the finest level, of all, and of an image of half the side (3 + 2, and 2 coarser)."""


def loss_of(full: RawOutput, half: RawOutput, taught: RawOutput) -> Tensor:
    return SedLoss().loss(anchored(LEVELS), [full, half], Views(()), taught)


def halved(full: RawOutput) -> RawOutput:
    """What an image of half the side gives if levels move down by one and nothing else changes."""
    draw = random_raw(len(full.logits), HALF - (WHOLE - FINEST), full.logits.shape[2], seed=9)
    return raw_of(
        torch.cat([full.logits[:, FINEST:], draw.logits.to(full.logits)], 1),
        torch.cat([full.deltas[:, FINEST:], draw.deltas.to(full.deltas)], 1),
    )


@pytest.mark.parametrize("size", [64, 96])
def test_anchors_of_half_the_side_are_half_those_of_the_next_coarser_level(size: int) -> None:
    full, half = RetinaNet(1, size, freeze=True), RetinaNet(1, size // 2, freeze=True)
    assert half.levels[:4] == full.levels[1:]
    coarse = full.anchors[full.levels[0] :]
    fine = half.anchors[: sum(half.levels[:4])]
    torch.testing.assert_close(2 * fine, coarse, atol=2, rtol=0)  # both are rounded to pixels
    images = torch.rand(1, 3, size, size)
    (_, small) = (
        SedLoss().views(Batch(images, batch_of(size).targets), np.random.default_rng(0)).inputs
    )
    assert full(small).logits.shape[1] == len(half.anchors)


def test_the_second_view_is_the_first_at_half_the_side() -> None:
    images = torch.arange(32.0).view(2, 1, 4, 4).expand(2, 3, 4, 4)
    batch = Batch(images, Targets(torch.zeros(1, 1, 4), torch.zeros(1, 1)))
    whole, half = SedLoss().views(batch, np.random.default_rng(0)).inputs
    assert whole is images
    assert isinstance(half, Tensor)
    assert half[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]


def test_kept_features_cannot_be_halved() -> None:
    batch = Batch((torch.rand(2, 4, 2, 2),), Targets(torch.zeros(1, 1, 4), torch.zeros(1, 1)))
    with pytest.raises(TypeError, match="features"):
        SedLoss().views(batch, np.random.default_rng(0))


def test_equal_predictions_on_corresponding_levels_have_no_loss_and_no_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(teacher, "SHARE", 1.0)
    taught = random_raw(2, WHOLE, 3, seed=0)
    logits, deltas = (part.clone().requires_grad_() for part in (taught.logits, taught.deltas))
    student = raw_of(logits, deltas)
    loss = loss_of(student, halved(student), taught)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    for part in (logits, deltas):
        assert part.grad is not None
        torch.testing.assert_close(part.grad, torch.zeros_like(part), atol=1e-6, rtol=0)


def test_an_anchor_that_the_half_size_image_misses_by_hand() -> None:
    taught = torch.full((1, WHOLE, 1), -30.0)
    taught[0, FINEST + 1] = logit(0.8)
    half = halved(raw_of(taught)).logits
    half[0, 1] = 0.0
    expected = 0.8 * 4 * 0.3**2 * np.log(2)
    loss = loss_of(raw_of(taught), raw_of(half), raw_of(taught))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_a_teacher_that_sees_nothing_leaves_a_finite_loss() -> None:
    logits = torch.zeros(2, WHOLE, 3, requires_grad=True)
    student = raw_of(logits)
    loss = loss_of(student, halved(student), raw_of(torch.full((2, WHOLE, 3), -200.0)))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_gradient_is_that_of_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "SHARE", 0.4)
    taught = random_raw(2, WHOLE, 2, seed=1)
    full, half = random_raw(2, WHOLE, 2, seed=2), random_raw(2, HALF, 2, seed=3)
    inputs = [
        part.requires_grad_() for part in (full.logits, full.deltas, half.logits, half.deltas)
    ]
    assert torch.autograd.gradcheck(
        lambda *parts: loss_of(raw_of(*parts[:2]), raw_of(*parts[2:]), taught), inputs
    )


def test_two_steps_change_the_weights_and_leave_them_finite() -> None:
    net = RetinaNet(2, 64, freeze=True)
    before = torch.cat([weight.flatten() for weight in net.head.parameters()]).detach()
    spec = DetectorSpec(steps=2, learning_rate=1e-3)
    fit(net, repeat(batch_of(64)), spec, lambda step, loss: None, SedLoss())
    after = torch.cat([weight.flatten() for weight in net.head.parameters()]).detach()
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)

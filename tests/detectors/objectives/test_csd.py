"""CSD, and what ISD shares with it: zero where it must be, numbers by hand."""

from math import log
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from mgral_service.detectors import build_objective
from mgral_service.detectors.batches import Batch
from mgral_service.detectors.net import DetectorNet, RawOutput, Targets
from mgral_service.detectors.objectives.consistency import Views
from mgral_service.detectors.objectives.csd import Aligned, CsdLoss, csd

ANCHORS, CLASSES = 6, 2
MIRROR = torch.tensor([1, 0, 3, 2, 5, 4])
NET = cast(DetectorNet, SimpleNamespace(mirror=MIRROR, shift=torch.zeros(ANCHORS)))


def batch_of(images: Tensor) -> Batch:
    """Without labels."""
    return Batch(images, Targets(torch.zeros(0, 1, 4), torch.zeros(0, 1, dtype=torch.int64)))


def images_of(views: Views) -> Tensor:
    """The images of the only forward pass."""
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


@pytest.mark.parametrize("name", ["isd", "csd"])
def test_symmetric_images_and_shared_predictions_have_no_loss(name: str) -> None:
    objective = build_objective(name)
    column = torch.rand(4, 3, 8, 1)
    views = objective.views(batch_of(column.expand(4, 3, 8, 8)), np.random.default_rng(0))
    raw = symmetric_raw(len(images_of(views)) // 4)
    assert float(objective.loss(NET, (raw,), views, None)) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("name", ["isd", "csd"])
def test_where_all_is_background_the_loss_is_zero_and_so_is_its_gradient(name: str) -> None:
    objective = build_objective(name)
    views = objective.views(batch_of(torch.rand(4, 3, 8, 8)), np.random.default_rng(0))
    raw = random_raw(len(images_of(views)))
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


def test_flipping_back_permutes_anchors_and_turns_dx_only() -> None:
    prediction = Aligned.of(random_raw(2))
    flipped = prediction.flipped(NET)
    torch.testing.assert_close(flipped.loc[:, 0, 0], -prediction.loc[:, 1, 0])
    torch.testing.assert_close(flipped.loc[:, 0, 1:], prediction.loc[:, 1, 1:])
    torch.testing.assert_close(flipped.flipped(NET).loc, prediction.loc)


def test_csd_looks_at_the_batch_and_its_flip() -> None:
    images = torch.rand(4, 3, 8, 8)
    x, flip = images_of(CsdLoss().views(batch_of(images), np.random.default_rng(0))).chunk(2)
    assert torch.equal(x, images)
    assert torch.equal(flip, images.flip(-1))

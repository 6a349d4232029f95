"""Dense Teacher: zero where it must be, numbers by hand, the gradient of finite differences."""

from itertools import repeat
from math import log

import numpy as np
import pytest
import torch
from torch import Tensor

from mgral_service.detectors import DETECTORS
from mgral_service.detectors.batches import Batch
from mgral_service.detectors.fit import fit
from mgral_service.detectors.net import RawOutput, Targets
from mgral_service.detectors.objectives import dense_teacher as teacher
from mgral_service.detectors.objectives.consistency import Views
from mgral_service.detectors.objectives.dense_teacher import DenseTeacherLoss, likeliest
from mgral_service.domain.specs import DetectorSpec
from tests.detectors.anchored import anchored, random_raw, raw_of

NO_VIEWS = Views(())


def loss_of(student: RawOutput, taught: RawOutput, softmax: bool = False) -> Tensor:
    net = anchored((student.logits.shape[1],), softmax)
    return DenseTeacherLoss().loss(net, [student], NO_VIEWS, taught)


def logit(probability: float) -> float:
    return log(probability / (1 - probability))


def batch_of(size: int) -> Batch:
    """Two images, the first with a labelled box."""
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    return Batch(images, Targets(torch.tensor([[[8.0, 8, 40, 40]]]), torch.tensor([[1]])))


def test_the_likeliest_are_one_in_a_hundred_of_the_batch_and_one_at_least() -> None:
    score = torch.rand(2, 150, generator=torch.Generator().manual_seed(0))
    expected = score >= score.flatten().sort(descending=True).values[2]
    assert torch.equal(likeliest(score), expected)
    assert likeliest(torch.tensor([[0.1, 0.3], [0.2, 0.1]])).tolist() == [
        [False, True],
        [False, False],
    ]


def test_classes_of_two_sigmoids_by_hand() -> None:
    student = raw_of(torch.tensor([[[0.0], [logit(0.3)]]]))
    taught = raw_of(torch.tensor([[[logit(0.8)], [logit(0.1)]]]))
    chosen = 0.3**2 * log(2)
    elsewhere = 0.3**2 * -log(0.7)
    expected = 4 * (chosen + elsewhere) / max(1, 0.8)
    assert float(loss_of(student, taught)) == pytest.approx(expected, rel=1e-5)


def test_a_box_beside_the_teachers_counts_by_the_teachers_probability() -> None:
    logits = torch.tensor([[[logit(0.8)]]])
    student = raw_of(logits, torch.tensor([[[0.5, 0.0, 0.0, 0.0]]]))
    assert float(loss_of(student, raw_of(logits))) == pytest.approx(0.8 * 2 / 3, rel=1e-5)


def test_many_chosen_anchors_are_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "SHARE", 1.0)
    student, taught = (torch.full((1, 5, 1), value) for value in (0.0, logit(0.8)))
    expected = 4 * 5 * 0.3**2 * log(2) / (5 * 0.8)
    assert float(loss_of(raw_of(student), raw_of(taught))) == pytest.approx(expected, rel=1e-5)


def test_one_class_and_the_background_by_softmax_are_one_sigmoid() -> None:
    student, taught = (random_raw(2, 6, 1, seed) for seed in (0, 1))

    def with_background(raw: RawOutput) -> RawOutput:
        return raw_of(torch.cat([torch.zeros_like(raw.logits), raw.logits], -1), raw.deltas)

    torch.testing.assert_close(
        loss_of(with_background(student), with_background(taught), softmax=True),
        loss_of(student, taught),
    )


@pytest.mark.parametrize("softmax", [True, False])
def test_a_student_that_agrees_on_the_chosen_anchors_has_no_loss_and_no_gradient(
    softmax: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "SHARE", 1.0)
    taught = random_raw(2, 6, 3, seed=2)
    logits, deltas = (part.clone().requires_grad_() for part in (taught.logits, taught.deltas))
    loss = loss_of(raw_of(logits, deltas), taught, softmax)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    for part in (logits, deltas):
        assert part.grad is not None
        torch.testing.assert_close(part.grad, torch.zeros_like(part), atol=1e-6, rtol=0)


@pytest.mark.parametrize("softmax", [True, False])
def test_where_all_is_background_the_loss_is_zero(softmax: bool) -> None:
    logits = torch.full((2, 6, 3), -200.0)
    logits[..., 0] = 200.0 if softmax else -200.0
    logits.requires_grad_()
    loss = loss_of(raw_of(logits), raw_of(logits.detach()), softmax)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0.0
    assert logits.grad is not None
    assert not logits.grad.any()


@pytest.mark.parametrize("softmax", [True, False])
def test_the_gradient_is_that_of_finite_differences(
    softmax: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher, "SHARE", 0.4)
    taught, student = random_raw(2, 6, 3, seed=3), random_raw(2, 6, 3, seed=4)
    inputs = [part.requires_grad_() for part in (student.logits, student.deltas)]
    assert torch.autograd.gradcheck(
        lambda logits, deltas: loss_of(raw_of(logits, deltas), taught, softmax), inputs
    )


def test_it_looks_at_the_batch_as_it_is_even_at_its_features() -> None:
    batch = Batch((torch.rand(2, 4, 2, 2),), Targets(torch.zeros(1, 1, 4), torch.zeros(1, 1)))
    assert DenseTeacherLoss().views(batch, np.random.default_rng(0)).inputs == (batch.inputs,)


@pytest.mark.parametrize("name", ["ssdlite", "retinanet"])
def test_two_steps_change_the_weights_and_leave_them_finite(name: str) -> None:
    net = DETECTORS[name].build(2, 64, True)
    before = torch.cat([weight.flatten() for weight in net.learning_rates()[0][0]]).detach()
    spec = DetectorSpec(steps=2, learning_rate=1e-3)
    fit(net, repeat(batch_of(64)), spec, lambda step, loss: None, DenseTeacherLoss())
    after = torch.cat([weight.flatten() for weight in net.learning_rates()[0][0]]).detach()
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)

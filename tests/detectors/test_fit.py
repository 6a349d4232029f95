"""The ramp, the rates, the averaged weights, and draws that do not disturb each other."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice, repeat
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mgral_service.detectors.batches import Batch, draw_batches, shuffled
from mgral_service.detectors.fit import TrainingDiverged, consistency_weight, fit, rate
from mgral_service.detectors.net import DetectorNet, RawOutput, Targets
from mgral_service.detectors.nets.ssdlite import SsdLite
from mgral_service.detectors.objectives.consistency import ConsistencyLoss, Views
from mgral_service.detectors.objectives.csd import CsdLoss
from mgral_service.domain.specs import DetectorAdvanced, DetectorSpec
from tests.detectors.tiny import CLASSES, SIDE, squares


def spec_of(steps: int, learning_rate: float = 1e-2, **advanced: Any) -> DetectorSpec:
    return DetectorSpec(
        steps=steps, learning_rate=learning_rate, advanced=DetectorAdvanced(**advanced)
    )


def batches_of(unlabelled: int, size: int, seed: int = 0, skip: int = 0) -> Iterator[Batch]:
    """Of 8 labelled images and the `unlabelled` ones after them, `skip` left out."""
    images, truth = squares(20)
    others = truth.ids[8 + skip : 8 + skip + unlabelled]
    labelled = truth.subset(truth.ids[:8])
    return draw_batches(images, torch.device("cpu"), labelled, others, size, seed)


def test_the_ramp_starts_at_zero_is_one_in_the_middle_and_falls_at_the_end() -> None:
    steps = 1200
    assert consistency_weight(0, steps) == 0.0
    assert consistency_weight(1, steps) == pytest.approx(np.exp(-5), rel=0.05)
    assert consistency_weight(160, steps) == pytest.approx(np.exp(-5 * (1 - 160 / 320.4) ** 2))
    assert consistency_weight(400, steps) == consistency_weight(900, steps) == 1.0
    assert consistency_weight(steps, steps) == pytest.approx(np.exp(-12.5))
    rising = [consistency_weight(step, steps) for step in range(330)]
    assert rising == sorted(rising)


def test_the_rate_warms_up_and_then_falls() -> None:
    rates = [rate(step, spec_of(100)) for step in range(100)]
    assert max(rates) == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.05


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert rate(0, spec_of(100, warmup=0.0)) == 1.0
    assert rate(0, spec_of(100)) == pytest.approx(0.1)


def test_the_rate_drops_to_a_tenth_at_each_share_of_the_run() -> None:
    spec = spec_of(120, warmup=0.05, schedule="steps", drops=(2 / 3, 5 / 6))
    expected = {0: 1 / 6, 5: 1.0, 6: 1.0, 79: 1.0, 80: 0.1, 99: 0.1, 100: 0.01, 119: 0.01}
    assert {step: rate(step, spec) for step in expected} == pytest.approx(expected)


def test_each_pass_shows_every_image_once() -> None:
    rows = list(islice(shuffled(5, np.random.default_rng(0)), 15))
    assert [sorted(rows[start : start + 5]) for start in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3


def test_labelled_images_are_drawn_and_seen_alike_whatever_batch_is_attached() -> None:
    pairs = zip(batches_of(3, 4, seed=5), batches_of(5, 4, seed=5, skip=4), strict=True)
    for batch, other in islice(pairs, 6):
        assert torch.equal(batch.images[:2], other.images[:2])
        assert batch.targets.equal(other.targets)
        assert not torch.equal(batch.images[2:], other.images[2:])


def test_without_unlabelled_images_the_whole_batch_is_labelled() -> None:
    batch = next(batches_of(0, 4))
    assert len(batch.images) == len(batch.targets.labels) == 4


def weights_after(seed: int) -> Tensor:
    net = SsdLite(len(CLASSES), SIDE, freeze=True)
    net.initialise(seed)
    fit(net, batches_of(4, 4, seed), spec_of(3), lambda step, loss: None, CsdLoss(), seed)
    return torch.cat([weight.flatten() for weight in net.head.parameters()]).detach()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first = weights_after(1)
    assert torch.equal(first, weights_after(1))
    assert not torch.equal(first, weights_after(2))


def test_progress_is_reported_to_the_last_step_and_may_stop_the_work() -> None:
    net = SsdLite(len(CLASSES), SIDE, freeze=True)
    steps: list[int] = []
    batches = batches_of(0, 2)
    fit(net, batches, spec_of(12, 1e-3), lambda step, loss: steps.append(step))
    assert steps == [10, 12]
    assert not net.training

    def refuse(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(net, batches, spec_of(12, 1e-3), refuse)


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    net = SsdLite(len(CLASSES), SIDE, freeze=True)
    with torch.no_grad():
        next(net.head.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match="learning_rate"):
        fit(net, batches_of(0, 2), spec_of(2), lambda step, loss: None)


class Point(DetectorNet):
    """Weights w and s; L_S = w + s, s learns at half the rate. Logits are w, `pooled` is 1 in
    training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.freeze = False
        self.w, self.s = (nn.Parameter(torch.zeros(1)) for _ in range(2))
        self.register_buffer("anchors", torch.zeros(1, 4))

    def initialise(self, seed: int) -> None:
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def load_pretrained(self, weights: Mapping[str, Tensor]) -> None:
        self.load_state_dict(weights)

    def learning_rates(self) -> list[tuple[list[nn.Parameter], float]]:
        return [([self.w], 1.0), ([self.s], 0.5)]

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images,)

    def predict(self, features: tuple[Tensor, ...]) -> RawOutput:
        blank = torch.zeros(len(features[0]), 1, 4)
        pooled = torch.full((len(blank), 1), float(self.training))
        return RawOutput(blank[..., :1] + self.w, blank + self.s, pooled)

    def supervised_loss(self, raw: RawOutput, targets: Targets) -> Tensor:
        return raw.logits.mean() + raw.deltas.mean()

    def boxes(self, deltas: Tensor) -> Tensor:
        return deltas


WALK = np.array([0.0, -0.1, -0.29, -0.561])  # of w, whose slope is 1, with momentum 0.9
"""Weight decay moves them by less than 1e-4."""


def blank_batches() -> Iterator[Batch]:
    return repeat(Batch(torch.zeros(2, 3, 4, 4), Targets(torch.zeros(2, 1, 4), torch.ones(2, 1))))


def steady(steps: int, **advanced: Any) -> DetectorSpec:
    constant = {"optimiser": "sgd", "warmup": 0.0, "schedule": "steps", "drops": ()}
    return spec_of(steps, 0.1, **constant | advanced)


def walked(spec: DetectorSpec) -> Point:
    net = Point()
    fit(net, blank_batches(), spec, lambda step, loss: None)
    return net


@pytest.fixture
def whole_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends with the plain mean of its weights."""
    monkeypatch.setattr("mgral_service.detectors.fit.AVERAGED", 100.0)


@pytest.mark.usefixtures("whole_mean")
def test_sgd_has_momentum_each_group_has_its_share_of_the_rate_and_the_mean_stays() -> None:
    net = walked(steady(3))
    assert net.w.item() == pytest.approx(WALK.mean(), abs=1e-4)
    assert net.s.item() == pytest.approx(WALK.mean() / 2, abs=1e-4)


@pytest.mark.usefixtures("whole_mean")
def test_a_step_after_a_drop_has_a_tenth_of_the_rate() -> None:
    dropped = walked(steady(3, drops=(0.6,)))  # of the third step
    last = WALK[2] - 0.01 * 2.71
    assert dropped.w.item() == pytest.approx((WALK[:3].sum() + last) / 4, abs=1e-4)


def test_the_average_forgets_what_lies_a_tenth_of_the_run_back() -> None:
    values, average, velocity = 0.0, 0.0, 0.0
    for step in range(20):  # the newest weights count a third at least
        velocity = 0.9 * velocity + 1
        values -= 0.1 * velocity
        average += max(1 / (step + 2), 1 / 3) * (values - average)
    assert walked(steady(20)).w.item() == pytest.approx(average, rel=0.02)


class Records(ConsistencyLoss):
    """No loss; keeps what the teacher says of each batch."""

    def __init__(self, needs_teacher: bool) -> None:
        self.needs_teacher, self.teachers = needs_teacher, list[RawOutput | None]()

    def loss(
        self, net: DetectorNet, raw: Sequence[RawOutput], views: Views, teacher: RawOutput | None
    ) -> Tensor:
        self.teachers.append(teacher)
        return torch.zeros(())


@pytest.mark.usefixtures("whole_mean")
def test_the_teacher_is_the_averaged_network_in_evaluation_mode() -> None:
    objective = Records(needs_teacher=True)
    fit(Point(), blank_batches(), steady(3), lambda step, loss: None, objective)
    raw = [teacher for teacher in objective.teachers if teacher is not None]
    assert [len(teacher.logits) for teacher in raw] == [2, 2, 2]
    means = [WALK[:steps].mean() for steps in (1, 2, 3)]
    assert [float(teacher.logits[0]) for teacher in raw] == pytest.approx(means, abs=1e-4)
    assert not any(teacher.pooled.any() or teacher.logits.requires_grad for teacher in raw)


def test_an_objective_without_teacher_gets_none() -> None:
    objective = Records(needs_teacher=False)
    fit(Point(), blank_batches(), steady(3), lambda step, loss: None, objective)
    assert objective.teachers == [None] * 3

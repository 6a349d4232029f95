"""The ramp, the rates, the averaged weights, and draws that do not disturb each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, repeat

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mgral_service.detectors.batches import Batch, TrainingSet, draw_batches, shuffled
from mgral_service.detectors.consistency import Views
from mgral_service.detectors.fit import Recipe, TrainingDiverged, consistency_weight, fit, rate
from mgral_service.detectors.isd import CsdLoss
from mgral_service.detectors.local import training_set
from mgral_service.detectors.net import DetectorNet, RawOutput, Targets
from mgral_service.detectors.ssdlite import SsdLite
from mgral_service.domain.specs import DetectorSpec
from tests.detectors.tiny import CLASSES, SIDE, squares

CPU = torch.device("cpu")


def some_training_set(unlabelled: int, skip: int = 0) -> TrainingSet:
    images, truth = squares(20)
    batch = truth.ids[8 + skip : 8 + skip + unlabelled]
    return training_set(images, truth.subset(truth.ids[:8]), batch, CPU)


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
    rates = [rate(step, Recipe(100, 1e-2)) for step in range(100)]
    assert max(rates) == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.05


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    assert rate(0, Recipe(100, 1e-2, warmup=0.0)) == 1.0
    assert rate(0, Recipe(100, 1e-2)) == pytest.approx(0.1)


def test_the_rate_drops_to_a_tenth_at_each_share_of_the_run() -> None:
    recipe = Recipe(120, 1e-3, warmup=0.05, schedule="steps", drops=(2 / 3, 5 / 6))
    at = {step: rate(step, recipe) for step in (0, 5, 6, 79, 80, 99, 100, 119)}
    assert at == pytest.approx(
        {0: 1 / 6, 5: 1.0, 6: 1.0, 79: 1.0, 80: 0.1, 99: 0.1, 100: 0.01, 119: 0.01}
    )


def test_a_recipe_is_the_detectors_over_another_number_of_steps() -> None:
    spec = DetectorSpec(
        steps=900, learning_rate=1e-3, optimiser="sgd", warmup=0.0, schedule="steps",
        drops=(0.5,), precision="fp32",
    )  # fmt: skip
    assert Recipe.of(spec, 60, until=20, average=False) == Recipe(
        60, 1e-3, "sgd", 0.0, "steps", (0.5,), "fp32", 20, False
    )


def test_each_pass_shows_every_image_once() -> None:
    rows = list(islice(shuffled(5, np.random.default_rng(0)), 15))
    assert [sorted(rows[at : at + 5]) for at in (0, 5, 10)] == [[0, 1, 2, 3, 4]] * 3


def test_labelled_images_are_drawn_and_seen_alike_whatever_batch_is_attached() -> None:
    one = draw_batches(some_training_set(3), 4, seed=5)
    other = draw_batches(some_training_set(5, skip=4), 4, seed=5)
    for first, second in islice(zip(one, other, strict=True), 6):
        assert torch.equal(first.images[:2], second.images[:2])
        assert torch.equal(first.targets.boxes, second.targets.boxes)
        assert not torch.equal(first.images[2:], second.images[2:])


def test_without_unlabelled_images_the_whole_batch_is_labelled() -> None:
    batch = next(draw_batches(some_training_set(0), 4, seed=0))
    assert len(batch.images) == len(batch.targets.labels) == 4


def weights_after(seed: int) -> Tensor:
    net = SsdLite(len(CLASSES), SIDE, freeze=True)
    net.initialise(seed)
    batches = draw_batches(some_training_set(4), 4, seed)
    fit(net, batches, Recipe(3, 1e-2), lambda step, loss: None, CsdLoss(), seed)
    return torch.cat([weight.flatten() for weight in net.head.parameters()]).detach()


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first = weights_after(1)
    assert torch.equal(first, weights_after(1))
    assert not torch.equal(first, weights_after(2))


def test_progress_is_reported_to_the_last_step_and_may_stop_the_work() -> None:
    net = SsdLite(len(CLASSES), SIDE, freeze=True)
    seen: list[int] = []
    batches = draw_batches(some_training_set(0), 2, 0)
    fit(net, batches, Recipe(12, 1e-3), lambda step, loss: seen.append(step))
    assert seen == [10, 12]
    assert not net.training

    def refuse(step: int, loss: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(net, batches, Recipe(12, 1e-3), refuse)


def test_a_loss_that_is_no_number_stops_the_training_in_words() -> None:
    net = SsdLite(len(CLASSES), SIDE, freeze=True)
    with torch.no_grad():
        next(net.head.parameters()).fill_(torch.nan)
    with pytest.raises(TrainingDiverged, match="learning_rate"):
        fit(net, draw_batches(some_training_set(0), 2, 0), Recipe(2, 1e-3), lambda step, loss: None)


class Point(DetectorNet):
    """Weights w and s; L_S = w + s, s learns at half the rate. Logits are w, `pooled` tells if it
    is in training.
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


STEADY = Recipe(100, 0.1, "sgd", warmup=0.0, schedule="steps", until=3, average=False)
WALK = (0.0, -0.1, -0.29, -0.561)  # of w, whose slope is 1, with momentum 0.9
"""Weight decay moves them by less than 1e-4."""


def blank_batches() -> Iterator[Batch]:
    return repeat(Batch(torch.zeros(2, 3, 4, 4), Targets(torch.zeros(2, 1, 4), torch.ones(2, 1))))


def walked(recipe: Recipe) -> Point:
    net = Point()
    fit(net, blank_batches(), recipe, lambda step, loss: None)
    return net


def test_sgd_has_momentum_and_each_group_its_share_of_the_rate() -> None:
    net = walked(STEADY)
    assert net.w.item() == pytest.approx(WALK[3], abs=1e-4)
    assert net.s.item() == pytest.approx(WALK[3] / 2, abs=1e-4)


def test_a_run_ends_with_the_mean_of_its_weights_or_with_the_last() -> None:
    assert walked(replace(STEADY, average=True)).w.item() == pytest.approx(np.mean(WALK), abs=1e-4)
    assert walked(STEADY).w.item() == pytest.approx(WALK[3], abs=1e-4)


def test_the_average_forgets_what_lies_a_tenth_of_the_run_back() -> None:
    net = walked(replace(STEADY, steps=10, average=True))  # halves: each step as much as all before
    assert net.w.item() == pytest.approx(-0.1 / 8 - 0.29 / 4 - 0.561 / 2, abs=1e-4)


def test_a_run_that_stops_early_keeps_the_schedule_of_the_whole() -> None:
    seen: list[int] = []
    net = Point()
    recipe = replace(STEADY, steps=4, drops=(0.5,))
    fit(net, blank_batches(), recipe, lambda step, loss: seen.append(step))
    assert seen == [3]
    assert net.w.item() == pytest.approx(WALK[2] - 0.01 * 2.71, abs=1e-4)  # the third step: a tenth


@pytest.mark.parametrize(
    ("average", "expected"),
    [(True, [np.mean(WALK[:2]), np.mean(WALK[:3])]), (False, WALK[1:3])],
)
def test_a_pause_shows_the_net_as_if_it_ended_there(
    average: bool, expected: Sequence[float]
) -> None:
    net = Point()
    seen: list[tuple[int, float, bool]] = []
    fit(
        net, blank_batches(), replace(STEADY, average=average), lambda step, loss: None,
        pauses=(1, 2, 3), look=lambda step: seen.append((step, net.w.item(), net.training)),
    )  # fmt: skip
    assert [step for step, _, _ in seen] == [1, 2]  # after the third it has ended
    assert [w for _, w, _ in seen] == pytest.approx(expected, abs=1e-4)
    assert not any(training for _, _, training in seen)


def test_training_goes_on_after_a_pause_as_if_there_was_none() -> None:
    paused, calm = (SsdLite(len(CLASSES), SIDE, freeze=True) for _ in range(2))
    modes: list[bool] = []

    def run(net: SsdLite, pauses: tuple[int, ...]) -> None:
        batches = draw_batches(some_training_set(4), 4, 0)
        fit(
            net, batches, Recipe(4, 1e-2), lambda step, loss: None, CsdLoss(), 0,
            pauses, lambda step: modes.append(net.training),
        )  # fmt: skip

    run(paused, (1, 3))
    run(calm, ())
    assert modes == [False, False]
    for one, other in zip(paused.parameters(), calm.parameters(), strict=True):
        assert torch.equal(one, other)


class Listens:
    """No loss; keeps what the teacher says of the batch."""

    def __init__(self, taught: bool) -> None:
        self.taught, self.told = taught, list[RawOutput | None]()

    def views(self, batch: Batch, rng: np.random.Generator) -> Views:
        return Views((batch.seen,))

    def loss(
        self, net: DetectorNet, raw: Sequence[RawOutput], views: Views, teacher: RawOutput | None
    ) -> Tensor:
        self.told.append(teacher)
        return torch.zeros(())


def test_a_taught_objective_hears_the_averaged_network_in_evaluation() -> None:
    objective = Listens(taught=True)
    fit(Point(), blank_batches(), STEADY, lambda step, loss: None, objective)
    said = [one for one in objective.told if one is not None]
    assert [len(one.logits) for one in said] == [2, 2, 2]
    means = [np.mean(WALK[:at]) for at in (1, 2, 3)]
    assert [float(one.logits[0]) for one in said] == pytest.approx(means, abs=1e-4)
    assert not any(one.pooled.any() or one.logits.requires_grad for one in said)


def test_an_objective_that_is_not_taught_hears_nothing() -> None:
    objective = Listens(taught=False)
    fit(Point(), blank_batches(), STEADY, lambda step, loss: None, objective)
    assert objective.told == [None] * 3

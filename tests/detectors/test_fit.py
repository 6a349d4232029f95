"""The ramp, the averaged weights, and draws that do not disturb each other."""

from itertools import islice

import numpy as np
import pytest
import torch

from mgral_service.detectors.batches import TrainingSet, draw_batches, shuffled
from mgral_service.detectors.fit import Recipe, TrainingDiverged, consistency_weight, fit, rate
from mgral_service.detectors.isd import CsdLoss
from mgral_service.detectors.local import training_set
from mgral_service.detectors.ssdlite import SsdLite
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
    rates = [rate(step, 100) for step in range(100)]
    assert max(rates) == pytest.approx(1.0)
    assert rates[:10] == sorted(rates[:10])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.05


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


def weights_after(seed: int, averaged: bool = True) -> torch.Tensor:
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

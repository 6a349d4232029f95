"""Training: L_S + w(t) L_U, averaged weights. No metric and no checkpoint policy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import cos, exp, isfinite, pi

import numpy as np
import torch
from torch import Tensor

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.consistency import ConsistencyLoss
from mgral_service.detectors.net import DetectorNet
from mgral_service.domain.errors import MgralError
from mgral_service.domain.specs import DetectorSpec

WEIGHT_DECAY = 5e-4
MOMENTUM = 0.9
CLIP = 5.0
FINAL_RATE = 0.02
DROP = 0.1
AVERAGED = 0.1
REPORT_EVERY = 10
RISE, FALL = 0.267, 0.167


class TrainingDiverged(MgralError):
    """The loss is no longer a number; the weights are of no use."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(step, loss)
        self.step, self.loss = step, loss

    def __str__(self) -> str:
        return (
            f"the loss became {self.loss} at step {self.step}: lower detector.learning_rate, "
            "or look for broken boxes among the training images"
        )


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; the fields are DetectorSpec's.

    until    steps after which the run ends, on the schedule of `steps`; None: after all
    average  it ends with averaged weights; False: with the last
    """

    steps: int
    learning_rate: float
    optimiser: str = "adamw"
    warmup: float = 0.1
    schedule: str = "cosine"
    drops: tuple[float, ...] = ()
    precision: str = "auto"
    until: int | None = None
    average: bool = True

    @classmethod
    def of(
        cls, spec: DetectorSpec, steps: int, until: int | None = None, average: bool = True
    ) -> Recipe:
        """A detector's, over another number of steps."""
        return cls(
            steps,
            spec.learning_rate,
            spec.optimiser,
            spec.warmup,
            spec.schedule,
            spec.drops,
            spec.precision,
            until,
            average,
        )


def consistency_weight(step: int, steps: int) -> float:
    """w(t) of L_U: ISD's schedule of 120,000 steps, scaled to `steps`; w(0) = 0."""
    if step <= 0:
        return 0.0
    rise, fall = RISE * steps, FALL * steps
    if step < rise:
        return exp(-5 * (1 - step / rise) ** 2)
    if step <= steps - fall:
        return 1.0
    return exp(-12.5 * (1 - (steps - step) / fall) ** 2)


def rate(step: int, recipe: Recipe) -> float:
    """Share of the learning rate: a linear warm-up, then half a cosine, or drops to a tenth."""
    warm = round(recipe.warmup * recipe.steps)
    if step < warm:
        return (step + 1) / warm
    if recipe.schedule == "steps":
        return DROP ** sum(step >= drop * recipe.steps for drop in recipe.drops)
    done = (step - warm) / max(1, recipe.steps - warm)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + cos(pi * done))


def fit(
    net: DetectorNet,
    batches: Iterator[Batch],
    recipe: Recipe,
    report: Callable[[int, float], None],
    objective: ConsistencyLoss | None = None,
    seed: int = 0,
    pauses: Collection[int] = (),
    look: Callable[[int], None] | None = None,
) -> None:
    """Train `net` where it stands; it ends as `recipe.average` says, in evaluation mode.

    report(step, loss) is called every ten steps and at the end, look(step) after the steps in
    `pauses`, with the net as if it ended there. TrainingDiverged for a loss that is not finite.
    """
    rng = np.random.default_rng([seed, 4])
    groups = net.learning_rates()
    learnt = [weight for weights, _ in groups for weight in weights]
    average = [weight.detach().clone() for weight in learnt]
    optimiser = _optimiser(groups, recipe)
    teacher = None
    if objective is not None and objective.taught:
        teacher = _teacher(net, average)
    last = recipe.steps if recipe.until is None else min(recipe.until, recipe.steps)
    net.train()
    for step in range(last):
        loss = _loss(net, next(batches), objective, teacher, recipe, step, rng)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        size = torch.nn.utils.clip_grad_norm_(learnt, CLIP)
        for group, (_, share) in zip(optimiser.param_groups, groups, strict=True):
            group["lr"] = share * recipe.learning_rate * rate(step, recipe)
        optimiser.step()
        kept = max(1 / (step + 2), 1 / (1 + AVERAGED * recipe.steps))
        torch._foreach_lerp_(average, [weight.detach() for weight in learnt], kept)
        done = step + 1
        if done % REPORT_EVERY == 0 or done == last:
            value = float(loss.detach())
            if not (isfinite(value) and isfinite(float(size))):
                raise TrainingDiverged(done, value)
            report(done, value)
        if look is not None and done in pauses and done < last:
            with _paused(net, learnt, average if recipe.average else None):
                look(done)
    if recipe.average:
        with torch.no_grad():
            torch._foreach_copy_([weight.data for weight in learnt], average)
    net.eval()


def _loss(
    net: DetectorNet,
    batch: Batch,
    objective: ConsistencyLoss | None,
    teacher: DetectorNet | None,
    recipe: Recipe,
    step: int,
    rng: np.random.Generator,
) -> Tensor:
    """L_S + w(t) L_U of one batch: convolutions in the recipe's precision, losses in fp32."""
    labelled = len(batch.targets.labels)
    views = None if objective is None else objective.views(batch, rng)
    target = None
    inputs = views.inputs if views else (batch.seen,)
    with net.in_precision(recipe.precision):
        if teacher is not None:
            seen = batch.seen
            if net.freeze and isinstance(seen, Tensor):  # one backbone, one pass for both
                seen = net.features(seen)
                inputs = tuple(seen if one is batch.seen else one for one in inputs)
            with torch.no_grad():
                target = teacher(seen).float()
        raw = [net(one).float() for one in inputs]
    loss = net.supervised_loss(raw[0].rows(0, labelled), batch.targets)
    if objective is None or views is None:
        return loss
    return loss + consistency_weight(step, recipe.steps) * objective.loss(net, raw, views, target)


def _optimiser(
    groups: list[tuple[list[torch.nn.Parameter], float]], recipe: Recipe
) -> torch.optim.Optimizer:
    params = [{"params": weights} for weights, _ in groups]
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(
            params, recipe.learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True
        )
    return torch.optim.AdamW(params, weight_decay=WEIGHT_DECAY, fused=True)


def _teacher(net: DetectorNet, average: list[Tensor]) -> DetectorNet:
    """The same network over the averaged weights, which `fit` moves in place."""
    teacher = copy.deepcopy(net).eval().requires_grad_(False)
    learnt = [weight for weights, _ in teacher.learning_rates() for weight in weights]
    for weight, mean in zip(learnt, average, strict=True):
        weight.data = mean
    return teacher


@contextmanager
def _paused(
    net: DetectorNet, learnt: list[torch.nn.Parameter], average: list[Tensor] | None
) -> Iterator[None]:
    """The net in evaluation mode, with the averaged weights if given; then as it was."""
    now = [weight.detach().clone() for weight in learnt]
    with torch.no_grad():
        if average is not None:
            torch._foreach_copy_([weight.data for weight in learnt], average)
        net.eval()
        yield
        torch._foreach_copy_([weight.data for weight in learnt], now)
    net.train()

"""Training: L_S + w(t) L_U, averaged weights. No metric and no checkpoint policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import cos, exp, isfinite, pi

import numpy as np
import torch

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.isd import ConsistencyLoss
from mgral_service.detectors.net import DetectorNet
from mgral_service.domain.errors import MgralError

WEIGHT_DECAY = 5e-4
CLIP = 5.0
WARMUP = 0.1
FINAL_RATE = 0.02
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
    """steps: optimiser steps; learning_rate: the highest, after the warm-up."""

    steps: int
    learning_rate: float


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


def rate(step: int, steps: int) -> float:
    """Share of the learning rate: a linear warm-up over the first tenth, then half a cosine."""
    warm = max(1, round(WARMUP * steps))
    if step < warm:
        return (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + cos(pi * done))


def fit(
    net: DetectorNet,
    batches: Iterator[Batch],
    recipe: Recipe,
    report: Callable[[int, float], None],
    objective: ConsistencyLoss | None = None,
    seed: int = 0,
) -> None:
    """Train `net` where it stands; it ends with its averaged weights, in evaluation mode.

    report(step, loss) is called every ten steps and at the end; TrainingDiverged for a loss that is
    not finite.
    """
    rng = np.random.default_rng([seed, 4])
    groups = net.learning_rates()
    learnt = [weight for weights, _ in groups for weight in weights]
    average = [weight.detach().clone() for weight in learnt]
    optimiser = torch.optim.AdamW(
        [{"params": weights} for weights, _ in groups], weight_decay=WEIGHT_DECAY, fused=True
    )
    net.train()
    for step in range(recipe.steps):
        batch = next(batches)
        labelled = len(batch.targets.labels)
        if objective is None:
            raw = net(batch.images)
            loss = net.supervised_loss(raw.rows(0, labelled), batch.targets)
        else:
            views = objective.views(batch.images, rng)
            raw = net(views.images)
            loss = net.supervised_loss(raw.rows(0, labelled), batch.targets)
            weight = consistency_weight(step, recipe.steps)
            loss = loss + weight * objective.loss(raw, views, net.mirror)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        size = torch.nn.utils.clip_grad_norm_(learnt, CLIP)
        for group, (_, share) in zip(optimiser.param_groups, groups, strict=True):
            group["lr"] = share * recipe.learning_rate * rate(step, recipe.steps)
        optimiser.step()
        kept = max(1 / (step + 2), 1 / (1 + AVERAGED * recipe.steps))
        torch._foreach_lerp_(average, [weight.detach() for weight in learnt], kept)
        if (step + 1) % REPORT_EVERY == 0 or step + 1 == recipe.steps:
            value = float(loss.detach())
            if not (isfinite(value) and isfinite(float(size))):
                raise TrainingDiverged(step, value)
            report(step + 1, value)
    with torch.no_grad():
        for trained, mean in zip(learnt, average, strict=True):
            trained.copy_(mean)
    net.eval()

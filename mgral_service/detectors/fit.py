"""Training: L_S + w(t) L_U, ending with averaged weights. No metric and no checkpoint policy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from math import cos, exp, isfinite, pi

import numpy as np
import torch
from torch import Tensor

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.net import DetectorNet
from mgral_service.detectors.objectives.consistency import ConsistencyLoss, Views
from mgral_service.domain.errors import MgralError
from mgral_service.domain.specs import DetectorSpec

WEIGHT_DECAY = 5e-4
MOMENTUM = 0.9
CLIP = 5.0
FINAL_RATE = 0.02
DROP = 0.1
AVERAGED = 0.1  # share of the run over which weights are averaged
REPORT_EVERY = 10
RISE, FALL = 0.267, 0.167


class TrainingDiverged(MgralError):
    """The loss is no longer a number; the weights are of no use."""


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


def rate(step: int, spec: DetectorSpec) -> float:
    """Share of the learning rate: a linear warm-up, then half a cosine, or drops to a tenth."""
    steps, advanced = spec.steps, spec.advanced
    warm = round(advanced.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if advanced.schedule == "steps":
        return DROP ** sum(step >= drop * steps for drop in advanced.drops)
    done = (step - warm) / max(1, steps - warm)
    return FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + cos(pi * done))


def fit(
    net: DetectorNet,
    batches: Iterator[Batch],
    spec: DetectorSpec,
    report: Callable[[int, float], None],
    objective: ConsistencyLoss | None = None,
    seed: int = 0,
) -> None:
    """Train `net` for spec.steps; it ends with averaged weights, in evaluation mode.

    Every ten steps and at the end: report(step, loss), TrainingDiverged if that is not finite.
    """
    rng = np.random.default_rng([seed, 4])
    groups = net.learning_rates()
    trained = [weight for weights, _ in groups for weight in weights]
    average = [weight.detach().clone() for weight in trained]
    optimiser = _optimiser(groups, spec)
    teacher = None
    if objective is not None and objective.needs_teacher:
        teacher = _teacher(net, average)
    net.train()
    for step in range(spec.steps):
        loss = _loss(net, next(batches), objective, teacher, spec, step, rng)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(trained, CLIP)
        for group, (_, share) in zip(optimiser.param_groups, groups, strict=True):
            group["lr"] = share * spec.learning_rate * rate(step, spec)
        optimiser.step()
        newest = max(1 / (step + 2), 1 / (1 + AVERAGED * spec.steps))
        torch._foreach_lerp_(average, [weight.detach() for weight in trained], newest)
        done = step + 1
        if done % REPORT_EVERY == 0 or done == spec.steps:
            value = float(loss.detach())
            if not (isfinite(value) and isfinite(float(norm))):
                raise TrainingDiverged(
                    f"the loss became {value} at step {done}: lower detector.learning_rate, or "
                    "look for broken boxes among the training images"
                )
            report(done, value)
    with torch.no_grad():
        torch._foreach_copy_([weight.data for weight in trained], average)
    net.eval()


def _loss(
    net: DetectorNet,
    batch: Batch,
    objective: ConsistencyLoss | None,
    teacher: DetectorNet | None,
    spec: DetectorSpec,
    step: int,
    rng: np.random.Generator,
) -> Tensor:
    """L_S + w(t) L_U of a batch: convolutions in the precision of `spec`, losses in fp32."""
    labelled = len(batch.targets.labels)
    views = Views((batch.inputs,)) if objective is None else objective.views(batch, rng)
    inputs, target = views.inputs, None
    with net.in_precision(spec.advanced.precision):
        if teacher is not None:
            shared = batch.inputs
            if net.freeze and isinstance(shared, Tensor):  # both have one backbone: run it once
                shared = net.features(shared)
                inputs = tuple(shared if view is batch.inputs else view for view in inputs)
            with torch.no_grad():
                target = teacher(shared).float()
        raw = [net(view).float() for view in inputs]
    loss = net.supervised_loss(raw[0].rows(0, labelled), batch.targets)
    if objective is None:
        return loss
    return loss + consistency_weight(step, spec.steps) * objective.loss(net, raw, views, target)


def _optimiser(
    groups: list[tuple[list[torch.nn.Parameter], float]], spec: DetectorSpec
) -> torch.optim.Optimizer:
    params = [{"params": weights} for weights, _ in groups]
    if spec.advanced.optimiser == "sgd":
        return torch.optim.SGD(
            params, spec.learning_rate, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True
        )
    return torch.optim.AdamW(params, weight_decay=WEIGHT_DECAY, fused=True)


def _teacher(net: DetectorNet, average: list[Tensor]) -> DetectorNet:
    """The same network with the averaged weights, which `fit` updates in place."""
    teacher = copy.deepcopy(net).eval().requires_grad_(False)
    trained = [weight for weights, _ in teacher.learning_rates() for weight in weights]
    for weight, mean in zip(trained, average, strict=True):
        weight.data = mean
    return teacher

"""What a user may write, and what is refused by the name of the field that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.specs import (
    AgentAdvanced,
    AgentSpec,
    CycleAdvanced,
    CycleSpec,
    DatasetSpec,
    DetectorAdvanced,
    DetectorSpec,
    ExperimentSpec,
    TableAdvanced,
    TableSpec,
)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: DatasetSpec("no spaces", "/data"), "name"),
        (lambda: DatasetSpec("", "/data"), "name"),
        (lambda: DatasetSpec("a" * 64, "/data"), "name"),
        (lambda: DetectorSpec(size=32), "detector.size"),
        (lambda: DetectorSpec(steps=0), "detector.steps"),
        (lambda: DetectorSpec(batch=1), "detector.batch"),
        (lambda: DetectorSpec(learning_rate=0.0), "detector.learning_rate"),
        (lambda: DetectorAdvanced(warmup=1.0), "detector.advanced.warmup"),
        (lambda: DetectorAdvanced(drops=(0.8, 0.5)), "detector.advanced.drops"),
        (lambda: DetectorAdvanced(drops=(0.5, 1.0)), "detector.advanced.drops"),
        (lambda: DetectorAdvanced(augmentations=65), "detector.advanced.augmentations"),
        (lambda: TableSpec(records=3), "table.records"),
        (lambda: TableSpec(folds=0), "table.folds"),
        (lambda: TableSpec(steps=0), "table.steps"),
        (lambda: TableSpec(unlabelled=-1), "table.unlabelled"),
        (lambda: TableSpec(actors=0), "table.actors"),
        (lambda: TableSpec(cpus=0), "table.cpus"),
        (lambda: TableSpec(gpus=-1), "table.gpus"),
        (
            lambda: TableSpec(records=8, advanced=TableAdvanced(min_records=9)),
            "table.advanced.min_records",
        ),
        (lambda: TableAdvanced(min_records=1), "table.advanced.min_records"),
        (lambda: TableAdvanced(rate=0.0), "table.advanced.rate"),
        (lambda: TableAdvanced(augmentations=-1), "table.advanced.augmentations"),
        (lambda: TableAdvanced(repeats=0), "table.advanced.repeats"),
        (lambda: TableAdvanced(max_failures=-1), "table.advanced.max_failures"),
        (lambda: AgentSpec(iterations=0), "agent.iterations"),
        (lambda: AgentAdvanced(draws=0, baseline="ema"), "agent.advanced.draws"),
        (lambda: AgentAdvanced(draws=1), "agent.advanced.draws"),
        (lambda: AgentAdvanced(memory=1.0), "agent.advanced.memory"),
        (lambda: AgentAdvanced(lane=-1), "agent.advanced.lane"),
        (lambda: AgentAdvanced(learning_rate=1.0), "agent.advanced.learning_rate"),
        (lambda: AgentAdvanced(clusters=-1), "agent.advanced.clusters"),
        (lambda: AgentAdvanced(risk_aversion=-1.0), "agent.advanced.risk_aversion"),
        (lambda: AgentAdvanced(temperature=(1.0, 0.0)), "agent.advanced.temperature"),
        (lambda: CycleAdvanced(scoring_share=1.0), "advanced.scoring_share"),
        (lambda: CycleSpec("d", 0), "budget"),
        (lambda: CycleSpec("d", 1, seed=-1), "seed"),
        (lambda: CycleSpec("d", 1, table=TableSpec(records=16, folds=5)), "table.records"),
        (lambda: CycleSpec("d", 1, method="paper"), "choice"),
        (
            lambda: CycleSpec("d", 1, table=TableSpec(advanced=TableAdvanced(value_model="idw"))),
            "table.advanced.value_model",
        ),
        (lambda: ExperimentSpec(DatasetSpec("d", "/"), CycleSpec("d", 1), 1), "initial"),
        (lambda: ExperimentSpec(DatasetSpec("d", "/"), CycleSpec("d", 1), 2, 0), "cycles"),
        (lambda: ExperimentSpec(DatasetSpec("d", "/"), CycleSpec("e", 1), 2), "cycle.dataset"),
        (
            lambda: ExperimentSpec(DatasetSpec("d", "/", unlabelled="u"), CycleSpec("d", 1), 2),
            "dataset.unlabelled",
        ),
    ],
)
def test_a_value_out_of_range_is_named(make: Callable[[], Any], where: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.where == where


def test_defaults_are_valid() -> None:
    assert CycleSpec("d", 1).strategy == "mgral"
    assert ExperimentSpec(DatasetSpec("d", "/"), CycleSpec("d", 1), 2).cycles == 1
    assert AgentAdvanced(draws=1, baseline="ema").draws == 1


def test_half_of_the_records_are_enough_unless_said_otherwise() -> None:
    assert TableSpec(records=96).least == 48
    assert TableSpec(records=12, advanced=TableAdvanced(min_records=9)).least == 9


def test_proxies_are_scored_by_the_metric_unless_a_reward_is_named() -> None:
    assert CycleSpec("a", 1, metric="ap").rewarded_by == "ap"
    spec = CycleSpec("a", 1, metric="ap", advanced=CycleAdvanced(reward="ap30"))
    assert spec.rewarded_by == "ap30"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.records import Reconciliation, Reliability, Status
from mgral_service.domain.specs import (
    AgentSpec,
    CycleSpec,
    DatasetSpec,
    DetectorSpec,
    ExperimentSpec,
    TableSpec,
)


@pytest.mark.parametrize(
    ("make", "where"),
    [
        (lambda: DatasetSpec("no spaces", "/data"), "name"),
        (lambda: DatasetSpec("", "/data"), "name"),
        (lambda: DatasetSpec("a" * 64, "/data"), "name"),
        (lambda: DatasetSpec("a", "/data", scoring_share=1.0), "scoring_share"),
        (lambda: DatasetSpec("a", "/data", seed=-1), "seed"),
        (lambda: DetectorSpec(size=100), "detector.size"),
        (lambda: DetectorSpec(steps=0), "detector.steps"),
        (lambda: DetectorSpec(batch=1), "detector.batch"),
        (lambda: DetectorSpec(learning_rate=0.0), "detector.learning_rate"),
        (lambda: TableSpec(records=3), "table.records"),
        (lambda: TableSpec(min_records=300), "table.min_records"),
        (lambda: TableSpec(steps=0), "table.steps"),
        (lambda: TableSpec(actors=0), "table.actors"),
        (lambda: TableSpec(cpus=0), "table.cpus"),
        (lambda: TableSpec(gpus=-1), "table.gpus"),
        (lambda: TableSpec(max_failures=-1), "table.max_failures"),
        (lambda: AgentSpec(iterations=0), "agent.iterations"),
        (lambda: AgentSpec(draws=0, baseline="ema"), "agent.draws"),
        (lambda: AgentSpec(draws=1), "agent.draws"),
        (lambda: AgentSpec(memory=1.0), "agent.memory"),
        (lambda: AgentSpec(lane=-1), "agent.lane"),
        (lambda: AgentSpec(learning_rate=1.0), "agent.learning_rate"),
        (lambda: AgentSpec(temperature=(1.0, 0.0)), "agent.temperature"),
        (lambda: CycleSpec("d", 0), "budget"),
        (lambda: CycleSpec("d", 1, seed=-1), "seed"),
        (lambda: CycleSpec("d", 1, when_uninformed="mgral"), "when_uninformed"),
        (lambda: ExperimentSpec(DatasetSpec("d", "/"), CycleSpec("d", 1), 1), "initial"),
        (lambda: ExperimentSpec(DatasetSpec("d", "/"), CycleSpec("d", 1), 2, 0), "cycles"),
        (lambda: ExperimentSpec(DatasetSpec("d", "/"), CycleSpec("e", 1), 2), "cycle.dataset"),
    ],
)
def test_a_value_out_of_range_is_named(make: Callable[[], Any], where: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        make()
    assert caught.value.where == where


def test_defaults_are_valid() -> None:
    assert CycleSpec("d", 1).strategy == "mgral"
    assert ExperimentSpec(DatasetSpec("d", "/"), CycleSpec("d", 1), 2).cycles == 1
    assert AgentSpec(draws=1, baseline="ema").draws == 1


@pytest.mark.parametrize(("spec", "least"), [(TableSpec(), 100), (TableSpec(records=5), 4)])
def test_half_of_the_records_are_enough_unless_said_otherwise(spec: TableSpec, least: int) -> None:
    assert spec.least == least
    assert TableSpec(records=12, min_records=9).least == 9


def test_a_status_only_moves_forward_and_ends() -> None:
    for old in Status:
        for new in Status:
            forward = new.order > old.order and not old.terminal
            assert old.may_become(new) == forward
    assert [one for one in Status if one.terminal] == [
        Status.SUCCEEDED,
        Status.FAILED,
        Status.CANCELLED,
    ]


def test_when_a_selection_exists_and_a_driver_works() -> None:
    assert not Status.TRAINING_AGENT.has_selection
    assert Status.SELECTED.has_selection
    assert not Status.FAILED.has_selection
    assert Status.QUEUED.driven
    assert not Status.SELECTED.driven
    assert not Status.CANCELLED.driven


def test_a_reward_is_informed_if_its_interval_lies_above_zero() -> None:
    assert Reliability(9, 0.5, 0.1, 0.8).informed
    assert not Reliability(9, 0.5, 0.0, 0.8).informed


def test_a_reconciliation_is_complete_if_nothing_is_left_over() -> None:
    assert Reconciliation(("a",), (), (), ()).complete
    assert not Reconciliation(("a",), (), ("b",), ()).complete

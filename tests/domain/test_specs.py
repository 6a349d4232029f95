"""What a user may write, and what is refused by the name of the field that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest

from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.specs import (
    OBJECTIVES_OF,
    AgentSpec,
    CycleSpec,
    DatasetSpec,
    DetectorSpec,
    ExperimentSpec,
    TableSpec,
)

SSD300 = DetectorSpec("ssd300", size=300, freeze_backbone=False)
RETINANET = DetectorSpec("retinanet", size=320, freeze_backbone=False)


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
        (lambda: DetectorSpec("ssd300"), "detector.size"),
        (lambda: DetectorSpec("retinanet", size=300), "detector.size"),
        (lambda: DetectorSpec("ssd300", size=300), "detector.weights"),
        (lambda: DetectorSpec(warmup=1.0), "detector.warmup"),
        (lambda: DetectorSpec(warmup=-0.1), "detector.warmup"),
        (lambda: DetectorSpec(drops=(0.8, 0.5)), "detector.drops"),
        (lambda: DetectorSpec(drops=(0.5, 1.0)), "detector.drops"),
        (lambda: TableSpec(records=3), "table.records"),
        (lambda: TableSpec(min_records=300), "table.min_records"),
        (lambda: TableSpec(steps=0), "table.steps"),
        (lambda: TableSpec(views=-1), "table.views"),
        (lambda: TableSpec(objective="csd", views=65), "table.views"),
        (lambda: TableSpec(stop=0.0), "table.stop"),
        (lambda: TableSpec(stop=1.1), "table.stop"),
        (lambda: TableSpec(checkpoints=0), "table.checkpoints"),
        (lambda: TableSpec(checkpoints=11), "table.checkpoints"),
        (lambda: TableSpec(checkpoints=2, stop=0.9), "table.checkpoints"),
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
    assert AgentSpec(draws=1, baseline="ema").draws == 1


@pytest.mark.parametrize(("spec", "least"), [(TableSpec(), 100), (TableSpec(records=5), 4)])
def test_half_of_the_records_are_enough_unless_said_otherwise(spec: TableSpec, least: int) -> None:
    assert spec.least == least
    assert TableSpec(records=12, min_records=9).least == 9


def test_a_detector_is_written_with_weights_optimiser_schedule_and_precision() -> None:
    spec = DetectorSpec(
        "ssd300", size=300, weights="VGG16_Weights.IMAGENET1K_FEATURES", optimiser="sgd",
        warmup=0.0, schedule="steps", drops=(0.5, 0.5, 0.9), precision="fp32",
    )  # fmt: skip
    assert spec.drops == (0.5, 0.5, 0.9)
    assert DetectorSpec().weights is None
    assert DetectorSpec(schedule="steps", drops=()).drops == ()  # the rate stays


@pytest.mark.parametrize(
    ("detector", "objective"),
    [
        (DetectorSpec(), "isd"),
        (DetectorSpec(), "csd"),
        (DetectorSpec(), "dense_teacher"),
        (SSD300, "isd"),
        (SSD300, "csd"),
        (SSD300, "dense_teacher"),
        (RETINANET, "sed"),
        (RETINANET, "dense_teacher"),
    ],
)
def test_a_detector_trains_with_the_objectives_its_outputs_allow(
    detector: DetectorSpec, objective: Any
) -> None:
    table = TableSpec(objective=objective)
    assert CycleSpec("d", 1, detector=detector, table=table).table.objective == objective


@pytest.mark.parametrize(
    ("detector", "objective", "allowed"),
    [
        (DetectorSpec(), "sed", "ssdlite trains with isd, csd, dense_teacher"),
        (SSD300, "sed", "ssd300 trains with isd, csd, dense_teacher"),
        (RETINANET, "isd", "retinanet trains with sed, dense_teacher"),
        (RETINANET, "csd", "retinanet trains with sed, dense_teacher"),
    ],
)
def test_another_objective_is_refused_with_those_that_are_allowed(
    detector: DetectorSpec, objective: Any, allowed: str
) -> None:
    with pytest.raises(InvalidInput, match=allowed) as caught:
        CycleSpec("d", 1, detector=detector, table=TableSpec(objective=objective))
    assert caught.value.where == "table.objective"


def test_every_detector_and_every_objective_has_its_row() -> None:
    detectors = get_args(get_type_hints(DetectorSpec)["name"])
    objectives = get_args(get_type_hints(TableSpec)["objective"])
    assert sorted(OBJECTIVES_OF) == sorted(detectors)
    assert {one for row in OBJECTIVES_OF.values() for one in row} == set(objectives)


@pytest.mark.parametrize("objective", ["isd", "sed"])
def test_objectives_that_make_images_keep_no_views(objective: Any) -> None:
    with pytest.raises(InvalidInput, match="images of its own") as caught:
        TableSpec(objective=objective, views=4)
    assert caught.value.where == "table.views"
    assert TableSpec(objective="csd", views=4).views == 4
    assert TableSpec(objective="dense_teacher", views=64).views == 64


def test_views_are_kept_for_a_frozen_backbone_only() -> None:
    table = TableSpec(objective="csd", views=4)
    assert CycleSpec("d", 1, table=table).detector.freeze_backbone
    with pytest.raises(InvalidInput, match=r"detector\.freeze_backbone") as caught:
        CycleSpec("d", 1, detector=DetectorSpec(freeze_backbone=False), table=table)
    assert caught.value.where == "table.views"


def test_a_run_is_averaged_over_its_end_or_stops_early() -> None:
    assert TableSpec(checkpoints=10).stop == 1
    assert TableSpec(stop=0.25).checkpoints == 1


@pytest.mark.parametrize(
    ("records", "twice", "count"), [(200, 0.1, 20), (30, 0.1, 0), (16, 0.25, 4)]
)
def test_so_many_are_trained_twice_as_tell_something(
    records: int, twice: float, count: int
) -> None:
    table = TableSpec(records=records, twice=twice)
    assert table.repeated == count
    assert table.designed == records + count
    assert TableSpec(records=records, twice=0.1, rotations=6).repeated in (0, 20)


def test_proxies_are_scored_by_the_metric_unless_a_reward_is_named() -> None:
    assert CycleSpec("a", 1, metric="ap").rewarded_by == "ap"
    assert CycleSpec("a", 1, metric="ap", reward="ap30").rewarded_by == "ap30"

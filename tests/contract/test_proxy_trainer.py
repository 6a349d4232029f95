"""The exam of ProxyTrainer: the double, one process, and a Ray cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mgral_service.cluster.proxies import RayProxyTrainer
from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector
from mgral_service.domain.ports import ProxyTrainer, Weights
from mgral_service.domain.records import ProxySpec
from mgral_service.domain.specs import DetectorSpec, TableSpec
from mgral_service.metrics import METRICS
from tests.detectors.tiny import CLASSES, SIDE, squares
from tests.doubles import FakeProxies

IMAGES, TRUTH = squares(20)
LABELLED, SCORING, POOL = TRUTH.ids[:8], TRUTH.ids[8:12], TRUTH.ids[12:]
DETECTOR = DetectorSpec(size=SIDE, steps=30, batch=4, learning_rate=3e-3)
SPECS = [ProxySpec(index, LABELLED, POOL[index : index + 4], 7) for index in range(3)]


def local() -> LocalProxyTrainer:
    return LocalProxyTrainer(
        DETECTOR, TableSpec(steps=6), CLASSES, IMAGES, TRUTH, SCORING, METRICS["ap50"]()
    )


@pytest.fixture(params=["double", "local", pytest.param("ray", marks=pytest.mark.cluster)])
def trainer(request: pytest.FixtureRequest, tmp_path: Path) -> ProxyTrainer:
    if request.param == "double":
        return FakeProxies()
    if request.param == "local":
        return local()
    request.getfixturevalue("ray_cluster")
    return RayProxyTrainer(local, 2, 1.0, 0.0, 0, tmp_path)


@pytest.fixture(scope="module")
def start() -> Weights:
    detector = TaskDetector(DETECTOR, CLASSES, IMAGES, METRICS["ap50"](), seed=0)
    detector.fit(TRUTH.subset(LABELLED), lambda progress: None)
    return {name: np.array(value) for name, value in detector.state().items()}


def scores(
    trainer: ProxyTrainer, specs: list[ProxySpec], start: Weights | None
) -> dict[int, float]:
    found = {}
    for result in trainer.train(specs, {} if start is None else {0: start}):
        assert result.score is not None, result.cause
        assert result.seconds >= 0
        assert result.index not in found
        found[result.index] = result.score
    return found


def test_each_proxy_gives_one_result_with_a_fraction(trainer: ProxyTrainer) -> None:
    found = scores(trainer, SPECS, None)
    assert sorted(found) == [0, 1, 2]
    assert all(0 <= score <= 1 for score in found.values())


def test_a_score_follows_from_spec_and_start_alone(trainer: ProxyTrainer, start: Weights) -> None:
    together = scores(trainer, SPECS, start)
    assert scores(trainer, SPECS[2:], start) == {2: together[2]}


def test_no_specs_give_no_results(trainer: ProxyTrainer) -> None:
    assert list(trainer.train([])) == []

"""The exam of ProxyTrainer: the double, one process, and a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mgral_service.cluster.proxies import RayProxyTrainer
from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector
from mgral_service.domain.ports import NOTHING, ProxyTrainer, Weights
from mgral_service.domain.records import ProxySpec
from mgral_service.domain.specs import DetectorSpec, TableSpec
from mgral_service.metrics import METRICS
from tests.detectors.tiny import CLASSES, SIDE, squares
from tests.doubles import FakeProxies

IMAGES, TRUTH = squares(20)
LABELLED, SCORING, POOL = TRUTH.ids[:8], TRUTH.ids[8:12], TRUTH.ids[12:]
DETECTOR = DetectorSpec(size=SIDE, steps=30, batch=4, learning_rate=3e-3)


def spec_of(index: int, fold: int | None) -> ProxySpec:
    """Of the pool if there is no fold: its batch has no labels."""
    batch = POOL[index : index + 4]
    return ProxySpec(
        index=index,
        role="pool" if fold is None else "uniform",
        chosen_by="uniform",
        fold=fold,
        batch=batch,
        labelled=LABELLED if fold is None else (*LABELLED, *batch),
        unlabelled=batch if fold is None else (),
        scoring=SCORING,
        seed=7,
    )


SPECS = [spec_of(0, None), spec_of(1, 0), spec_of(2, 1)]


def local() -> LocalProxyTrainer:
    return LocalProxyTrainer(
        DETECTOR, TableSpec(steps=6), CLASSES, IMAGES, TRUTH, METRICS["ap50"]()
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
    return detector.state()


def scores(
    trainer: ProxyTrainer,
    specs: Sequence[ProxySpec],
    starts: Mapping[int | None, Weights] = NOTHING,
) -> dict[int, float]:
    by_index = {}
    for result in trainer.train(specs, starts):
        assert result.score is not None, result.cause
        assert result.duration_s >= 0
        assert result.index not in by_index
        by_index[result.index] = result.score
    return by_index


def test_each_proxy_gives_one_result_with_a_fraction(trainer: ProxyTrainer) -> None:
    by_index = scores(trainer, SPECS)
    assert sorted(by_index) == [0, 1, 2]
    assert all(0 <= score <= 1 for score in by_index.values())


def test_a_score_follows_from_spec_and_start_alone(trainer: ProxyTrainer, start: Weights) -> None:
    starts: dict[int | None, Weights] = {None: start, 0: start, 1: start}
    together = scores(trainer, SPECS, starts)
    assert scores(trainer, SPECS[2:], starts) == {2: together[2]}


def test_no_specs_give_no_results(trainer: ProxyTrainer) -> None:
    assert list(trainer.train([])) == []

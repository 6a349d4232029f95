"""Experiments on a small folder over in-memory stores; a whole one on Ray:
tests/cluster/test_jobs.py.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import SecretStr

from mgral_service.app import wiring
from mgral_service.app.experiment import run_experiment
from mgral_service.app.settings import Settings
from mgral_service.cluster import proxies
from mgral_service.datasets import images, loading
from mgral_service.domain.errors import InvalidInput, MgralError
from mgral_service.domain.records import CycleRecord, Problem, Selection, Status
from mgral_service.domain.report import CycleReport
from mgral_service.domain.specs import (
    AgentAdvanced,
    AgentSpec,
    CycleSpec,
    DetectorSpec,
    ExperimentSpec,
    TableSpec,
)
from mgral_service.report import files
from tests.datasets.folders import coco_folder
from tests.doubles import CLASSES, FakeDetector, FakeProxies
from tests.memory_stores import memory_stores

CYCLE = CycleSpec(
    "pets",
    budget=5,
    detector=DetectorSpec(size=64),
    table=TableSpec(records=8, folds=2),
    agent=AgentSpec(iterations=3, advanced=AgentAdvanced(draws=4, lane=16)),
)
FAILING = frozenset({1, 2, 3, 5})  # of the six proxies that are planned before the agent's


class Rig:
    """An experiment on 50 images and its doubles; `watched` are the events."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pets = coco_folder(folder / "pets", train=48, test=2)
        pets.train["categories"] = [
            {"id": number, "name": name} for number, name in enumerate(CLASSES, 3)
        ]
        pets.test["categories"] = pets.train["categories"]
        self.spec = ExperimentSpec(pets.write(), CYCLE, initial=20)
        self.detector, self.proxies = FakeDetector(), FakeProxies()
        self.stores = memory_stores()
        self.watched: list[tuple[str, Mapping[str, Any]]] = []
        self.out = folder / "out"
        self.settings = Settings(
            home=folder / "home", redis_url=SecretStr("redis://none"), driver_threads=1
        )
        monkeypatch.setattr(wiring, "stores", lambda settings, patience_s: self.stores)
        monkeypatch.setattr(wiring, "task_detector", lambda *given: self.detector)
        monkeypatch.setattr(proxies, "RayProxyTrainer", lambda *given: self.proxies)
        monkeypatch.setattr(proxies, "connect", lambda: None)
        monkeypatch.setattr(files, "write", lambda *given: ())

    def run(self) -> list[tuple[Selection, CycleReport]]:
        def watch(kind: str, data: Mapping[str, Any]) -> None:
            self.watched.append((kind, data))

        return run_experiment(self.spec, self.settings, watch, self.out)

    def cycles(self) -> tuple[CycleRecord, ...]:
        """Newest first."""
        return self.stores.cycles.page(None, 10)


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(tmp_path, monkeypatch)


def test_an_experiment_runs_to_its_end_and_then_answers_at_once(rig: Rig) -> None:
    rig.spec = replace(rig.spec, cycles=2)
    results = rig.run()
    assert [report.labelled for _, report in results] == [20, 25]
    for record in rig.cycles():
        assert record.status is Status.SUCCEEDED
        assert (record.experiment, record.job) == (True, None)
    rig.proxies, fits = FakeProxies(dies_after=0), len(rig.detector.fits)
    assert rig.run() == results
    assert len(rig.detector.fits) == fits


def test_the_detector_never_trains_on_images_that_nobody_labelled(rig: Rig) -> None:
    ((selection, _),) = rig.run()
    labelled = {*rig.detector.fits[0]}
    chosen = {image.image_id for image in selection.images}
    assert len(labelled) == 20
    assert labelled.isdisjoint(chosen)
    assert {*rig.detector.fits[-1]} == labelled | chosen


def test_each_image_is_decoded_once(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many cycles there are."""
    decoded: Counter[str] = Counter()
    decode = images.decode_image

    def count(data: bytes, file: str) -> Image.Image:
        decoded[file] += 1
        return decode(data, file)

    monkeypatch.setattr(images, "decode_image", count)
    monkeypatch.setattr(loading, "decode_image", count)
    rig.spec = replace(rig.spec, cycles=2)
    rig.run()
    assert len(decoded) == 50
    assert {*decoded.values()} == {1}


def test_images_that_do_not_fit_in_memory_are_decoded_into_a_file(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "memory_left", lambda: 1)
    rig.run()
    (file,) = (rig.settings.home / "images").glob("*.npy")
    assert file.stat().st_size > 50 * 3 * 64 * 64


def test_an_unknown_strategy_is_refused_before_anything_is_made(rig: Rig) -> None:
    rig.spec = replace(rig.spec, cycle=replace(CYCLE, strategy="oracle"))
    with pytest.raises(InvalidInput, match="strategy"):
        rig.run()
    assert not rig.settings.home.exists()


def test_a_failed_cycle_is_tried_again_with_the_proxies_that_it_trained(rig: Rig) -> None:
    rig.proxies = FakeProxies(bad=FAILING)
    with pytest.raises(MgralError, match=r"TooFewRecords.*Run the file again to try it again"):
        rig.run()
    (failed,) = rig.cycles()
    rig.proxies, rig.detector = FakeProxies(), FakeDetector()
    ((selection, report),) = rig.run()
    assert rig.proxies.trained == [*sorted(FAILING), 6, 7]
    assert len(rig.detector.fits) == 1  # after the annotations
    assert report.test_before is not None
    details = [data["detail"] for _, data in rig.watched if "detail" in data]
    assert details[-1] == f"a new try of {failed.id}, which is FAILED"
    assert {record.cycle for record in rig.stores.table.records(selection.cycle)} == {
        selection.cycle
    }
    assert selection.cycle != failed.id
    assert rig.run() == [(selection, report)]


def test_a_cancelled_cycle_is_tried_again(rig: Rig) -> None:
    rig.proxies = FakeProxies(dies_after=0)
    with pytest.raises(KeyboardInterrupt):
        rig.run()
    (interrupted,) = rig.cycles()
    rig.stores.cycles.put(replace(interrupted, status=Status.CANCELLED), None)
    rig.proxies = FakeProxies()
    ((selection, _),) = rig.run()
    assert len(selection.images) == CYCLE.budget
    assert selection.cycle != interrupted.id


def test_records_of_another_version_are_not_handed_over(rig: Rig) -> None:
    rig.proxies = FakeProxies(bad=FAILING)
    with pytest.raises(MgralError):
        rig.run()
    (failed,) = rig.cycles()
    unreadable = replace(failed, problem=Problem("Unreadable", "another version"))
    rig.stores.cycles.put(unreadable, None)
    rig.proxies = FakeProxies()
    rig.run()
    assert rig.proxies.trained == list(range(8))


def test_a_cycle_that_failed_with_its_images_annotated_is_not_tried_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("mgral_service.app.driver.evaluate", fails)
    with pytest.raises(RuntimeError):
        rig.run()
    with pytest.raises(MgralError, match=r"out of memory\. Its images are annotated already"):
        rig.run()

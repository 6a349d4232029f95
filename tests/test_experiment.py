"""Cycles of an experiment over in-memory stores; a whole one on Ray: tests/cluster/test_jobs.py."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from mgral_service import codec
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput, MgralError
from mgral_service.domain.evidence import CycleReport
from mgral_service.domain.records import EXPERIMENT, Problem, Selection, Status
from mgral_service.domain.specs import ExperimentSpec
from mgral_service.experiment import _begun, _one_cycle, run_experiment
from mgral_service.settings import Settings
from tests.doubles import FakeDetector, FakeProxies
from tests.test_driver import SPEC, Rig


class Oracle:
    asked: tuple[str, ...] = ()

    def annotate(self, ids: Sequence[str]) -> Annotations:
        return Annotations.empty(ids)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def begun(rig: Rig, told: list[str] | None = None) -> str:
    spec = ExperimentSpec(rig.dataset.spec, SPEC, 2)
    words: list[str] = [] if told is None else told
    return _begun(
        "digest/1", spec, rig.dataset, rig.ports, lambda kind, data: words.append(data["detail"])
    )


def run(rig: Rig, name: str) -> tuple[Selection, CycleReport]:
    return _one_cycle(name, rig.dataset, rig.ports, Oracle(), lambda kind, data: None)


def test_an_experiment_s_cycle_is_driven_to_its_end_and_then_answers_at_once(rig: Rig) -> None:
    name = begun(rig)
    assert rig.stores.cycles.get(name).job == EXPERIMENT
    answer = run(rig, name)
    assert rig.stores.cycles.get(name).status is Status.SUCCEEDED
    rig.proxies = FakeProxies(dies_after=0)
    assert begun(rig) == name
    assert run(rig, name) == answer


def test_an_unknown_fallback_is_refused_before_anything_is_made(rig: Rig, tmp_path: Path) -> None:
    spec = ExperimentSpec(rig.dataset.spec, replace(SPEC, when_uninformed="oracle"), 2)
    home = tmp_path / "home"
    with pytest.raises(InvalidInput, match="when_uninformed"):
        run_experiment(spec, Settings(home=home), lambda kind, data: None, tmp_path / "out")
    assert not home.exists()


def test_a_cycle_that_failed_is_tried_anew_with_the_proxies_it_trained(rig: Rig) -> None:
    rig.proxies = FakeProxies(bad=frozenset({1, 2, 3, 5, 6}))
    name = begun(rig)
    with pytest.raises(MgralError, match=r"TooFewRecords.*Run the file again to try it anew"):
        run(rig, name)
    rig.proxies = FakeProxies()
    words: list[str] = []
    again = begun(rig, words)
    assert words == [f"a new try of {name}, which is FAILED"]
    run(rig, again)
    assert rig.proxies.trained == [1, 2, 3, 5, 6]
    assert [one.cycle for one in rig.stores.table.records(again)] == [again] * 8
    assert begun(rig) == again != name


def test_a_try_sees_what_the_one_before_saw(rig: Rig) -> None:
    rig.proxies = FakeProxies(bad=frozenset(range(6)))
    with pytest.raises(MgralError):
        run(rig, first := begun(rig))
    rig.proxies, rig.detector = FakeProxies(), FakeDetector()
    rig.detector.observe = None  # type: ignore[method-assign, assignment]
    _, report = run(rig, begun(rig))
    kept = rig.stores.cycles.document(first, "report")
    assert kept is not None
    assert report.scoring_before == codec.decode(CycleReport, kept).scoring_before is not None


def test_a_cancelled_one_is_tried_anew_as_well(rig: Rig) -> None:
    name = begun(rig)
    cancelled = replace(rig.stores.cycles.get(name), status=Status.CANCELLED)
    rig.stores.cycles.put(cancelled, None)
    assert len(run(rig, begun(rig))[0].images) == SPEC.budget


def test_records_of_another_version_are_not_handed_on(rig: Rig) -> None:
    rig.proxies = FakeProxies(bad=frozenset(range(6)))
    name = begun(rig)
    with pytest.raises(MgralError):
        run(rig, name)
    failed = replace(rig.stores.cycles.get(name), problem=Problem("Unreadable", "another version"))
    rig.stores.cycles.put(failed, None)
    assert rig.stores.table.count(begun(rig)) == 0


def test_one_that_failed_with_its_images_annotated_is_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("mgral_service.cycle.evaluate", fails)
    name = begun(rig)
    with pytest.raises(RuntimeError):
        run(rig, name)
    for again in (lambda: run(rig, name), lambda: begun(rig)):
        with pytest.raises(MgralError, match=r"out of memory\. Its images are annotated already"):
            again()

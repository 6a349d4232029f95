"""The driver over in-memory stores: what it does, what it repeats and what it leaves alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from mgral_service import codec
from mgral_service.app import driver
from mgral_service.cycle.context import CycleContext
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import IllegalTransition, LeaseHeld
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import NOTHING, Report
from mgral_service.domain.records import (
    CycleRecord,
    DatasetImages,
    DatasetRecord,
    ImageRecord,
    IngestReport,
    Selection,
    Status,
)
from mgral_service.domain.report import CycleReport
from mgral_service.domain.specs import (
    AgentAdvanced,
    AgentSpec,
    CycleSpec,
    DatasetSpec,
    TableSpec,
)
from mgral_service.store.artifacts import FileArtifacts
from mgral_service.strategies import STRATEGIES
from tests.doubles import CLASSES, FakeDetector, FakeProxies, ids
from tests.memory_stores import memory_stores

NAME = "cyc_0"
RECORDS = 12
SPEC = CycleSpec(
    "toy",
    budget=5,
    table=TableSpec(records=RECORDS, folds=2),
    agent=AgentSpec(iterations=3, advanced=AgentAdvanced(draws=4, lane=16)),
)


class Rig:
    """A pool of 80 images: 30 labelled, 5 test, 45 to choose from."""

    def __init__(self, folder: Path, spec: CycleSpec = SPEC) -> None:
        image_ids = ids(80)
        self.images = DatasetImages(
            tuple(ImageRecord(image_id, f"{image_id}.jpg", 32, 32) for image_id in image_ids),
            image_ids[:30],
            image_ids[35:],
            (),
            image_ids[30:35],
        )
        self.dataset = DatasetRecord(
            DatasetSpec("toy", "/nowhere"), CLASSES, 30, 45, 0, 5,
            IngestReport(80, 0, 0, 0, 0, 80), 0.0,
        )  # fmt: skip
        self.stores = memory_stores()
        self.stores.datasets.add(self.dataset, self.images)
        self.create(NAME, spec)
        self.detector, self.proxies = FakeDetector(), FakeProxies()
        self.ports = driver.DriverPorts(self.stores, FileArtifacts(folder), self._context)

    def _context(self, record: CycleRecord, split: PoolSplit, report: Report) -> CycleContext:
        return CycleContext(
            record.id,
            record.spec,
            split,
            CLASSES,
            Annotations.empty((*split.labelled, *split.scoring, *split.test)),
            self.detector,
            self.detector,
            self.proxies,
            lambda name: STRATEGIES[name](),
        )

    def create(self, name: str, spec: CycleSpec = SPEC) -> None:
        self.stores.cycles.create(CycleRecord(name, spec, Status.QUEUED, 0, 0.0, 0.0), None, "")

    def drive(self, name: str = NAME) -> CycleRecord:
        return driver.drive(name, self.ports, "test")

    def selection(self) -> Selection:
        text = self.stores.cycles.attachment(NAME, "selection")
        assert text is not None
        return codec.decode(Selection, text)

    def report(self, name: str = NAME) -> CycleReport:
        text = self.stores.cycles.attachment(name, "report")
        assert text is not None
        return codec.decode(CycleReport, text)

    def annotate(self) -> None:
        answers = Annotations.empty(image.image_id for image in self.selection().images)
        self.stores.datasets.add_labels("toy", NAME, answers)
        record = self.stores.cycles.get(NAME)
        self.stores.cycles.put(replace(record, status=Status.ANNOTATED), None)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_cycle_goes_from_queued_to_its_selection(rig: Rig) -> None:
    assert rig.drive().status is Status.SELECTED
    chosen = [image.image_id for image in rig.selection().images]
    assert len(set(chosen)) == 5
    assert set(chosen) <= set(rig.images.unlabelled)
    assert [record.index for record in rig.stores.table.records(NAME)] == list(range(RECORDS))
    assert [phase.phase for phase in rig.report().phases] == [
        "FITTING", "PREDICTING", "TRAINING_PROXIES", "TRAINING_AGENT",
    ]  # fmt: skip


def test_annotations_lead_to_a_detector_scored_before_and_after(rig: Rig) -> None:
    rig.drive()
    rig.annotate()
    assert rig.drive().status is Status.SUCCEEDED
    assert rig.report().test_before == pytest.approx(0.50)  # thirty labelled images
    assert rig.report().test_after == pytest.approx(0.55)  # and five chosen ones


def test_a_driver_that_dies_loses_no_record_and_chooses_the_same(rig: Rig, tmp_path: Path) -> None:
    rig.proxies = FakeProxies(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        rig.drive()
    assert rig.stores.table.count(NAME) == 3
    fits = len(rig.detector.fits)
    rig.proxies = FakeProxies()
    assert rig.drive().status is Status.SELECTED
    assert len(rig.proxies.trained) == RECORDS - 3
    assert len(rig.detector.fits) == fits  # predictions and weights were stored
    assert set(rig.proxies.starts) == {0, 1}
    calm = Rig(tmp_path / "calm")
    calm.drive()
    assert rig.selection().images == calm.selection().images


def test_damaged_weights_are_fitted_again(rig: Rig, tmp_path: Path) -> None:
    rig.proxies = FakeProxies(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        rig.drive()
    (damaged,) = (tmp_path / NAME).glob("weights-fold-1*")
    damaged.write_bytes(b"damaged")
    fits = len(rig.detector.fits)
    rig.proxies = FakeProxies()
    assert rig.drive().status is Status.SELECTED
    assert len(rig.detector.fits) == fits + 1


def test_failed_proxies_are_named_and_the_cycle_goes_on(rig: Rig) -> None:
    rig.proxies = FakeProxies(bad=frozenset({1, 6}))
    assert rig.drive().status is Status.SELECTED
    assert rig.report().failed_proxies == ("proxy 1: made to fail", "proxy 6: made to fail")


def test_too_few_records_fail_the_cycle_with_the_first_cause(rig: Rig) -> None:
    rig.proxies = FakeProxies(bad=frozenset(range(1, 9)))
    record = rig.drive()
    assert record.status is Status.FAILED
    assert record.problem is not None
    assert record.problem.code == "TooFewRecords"
    assert "proxy 1: made to fail" in record.problem.detail
    assert len(rig.report().failed_proxies) == 8


def test_a_cancelled_cycle_is_left_alone(rig: Rig) -> None:
    record = rig.stores.cycles.get(NAME)
    rig.stores.cycles.put(replace(record, status=Status.CANCELLED), None)
    assert rig.drive().status is Status.CANCELLED
    assert rig.detector.fits == []


def test_cancelling_while_proxies_train_stops_the_driver(rig: Rig) -> None:
    class Cancels(FakeProxies):
        def train(self, specs, starts=NOTHING):  # type: ignore[no-untyped-def]
            for result in super().train(specs):
                yield result
                record = rig.stores.cycles.get(NAME)
                if not record.status.terminal:
                    rig.stores.cycles.put(replace(record, status=Status.CANCELLED), None)

    rig.proxies = Cancels()
    with pytest.raises(IllegalTransition):
        rig.drive()
    assert rig.stores.cycles.get(NAME).status is Status.CANCELLED


def test_a_second_driver_is_refused_while_the_first_lives(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "LEASE_S", -4.5)  # do not wait for it to lapse
    rig.stores.cycles.acquire(NAME, "another", 60.0)
    with pytest.raises(LeaseHeld, match="another"):
        rig.drive()


@pytest.mark.parametrize("rest", [Status.SELECTED, Status.SUCCEEDED])
def test_a_second_driver_that_waited_leaves_what_the_first_made(rig: Rig, rest: Status) -> None:
    """The first comes to rest between the second's first look and its lease."""
    cycles, acquire = rig.stores.cycles, rig.stores.cycles.acquire

    def late(cycle: str, owner: str, ttl_s: float) -> int:
        cycles.put(replace(cycles.get(cycle), status=rest), None)
        return acquire(cycle, owner, ttl_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cycles, "acquire", late)
        assert rig.drive().status is rest
    assert cycles.get(NAME).problem is None
    assert cycles.holder(NAME) is None


def test_labels_of_another_cycle_do_not_move_a_restarted_one(rig: Rig) -> None:
    rig.proxies = FakeProxies(dies_after=2)
    with pytest.raises(KeyboardInterrupt):
        rig.drive()
    rig.stores.datasets.add_labels("toy", "cyc_other", Annotations.empty(rig.images.unlabelled[:3]))
    rig.proxies = FakeProxies()
    rig.drive()
    assert rig.report().unlabelled == 45


def test_a_cycle_of_another_version_fails_and_says_so(rig: Rig) -> None:
    rig.stores.cycles.put_attachment(NAME, "split", '{"of": "another version"}', None)
    record = rig.drive()
    assert record.status is Status.FAILED
    assert record.problem is not None
    assert record.problem.code == "Unreadable"


def test_the_cycle_s_events_follow_its_states(rig: Rig) -> None:
    rig.drive()
    events = rig.stores.events.read(NAME, "0", 1000)
    states = [e.data["status"] for e in events if e.kind == "cycle.state_changed"]
    assert states == ["FITTING", "PREDICTING", "TRAINING_PROXIES", "TRAINING_AGENT", "SELECTED"]
    proxies = [e.data for e in events if e.data.get("phase") == "TRAINING_PROXIES"]
    assert proxies[-1]["done"] == RECORDS

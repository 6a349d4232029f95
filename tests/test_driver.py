"""The driver over in-memory stores: what it does, what it repeats and what it leaves alone."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from mgral_service import codec, cycle, driver
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import IllegalTransition, LeaseHeld
from mgral_service.domain.evidence import CycleReport
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import NOTHING, Report
from mgral_service.domain.records import (
    CycleRecord,
    DatasetRecord,
    ImageRecord,
    IngestReport,
    Selection,
    Status,
)
from mgral_service.domain.specs import AgentSpec, CycleSpec, DatasetSpec, TableSpec
from mgral_service.store.artifacts import FileArtifacts
from mgral_service.store.memory import memory_stores
from mgral_service.strategies import STRATEGIES
from tests.doubles import CLASSES, FakeDetector, FakeProxies, ids

NAME = "cyc_0"
SPEC = CycleSpec(
    "toy",
    budget=5,
    table=TableSpec(records=8, min_records=4, online=0),
    agent=AgentSpec(iterations=3, draws=4, lane=16),
)
WITHOUT_LABELS = replace(SPEC, table=replace(SPEC.table, source="semi_supervised"))
"""Without labels all the way: beside records with labels earlier ones would tell nothing."""


class Rig:
    """One cycle of a pool of 60 images: 10 labelled, 5 scoring, 5 test, 40 to choose from."""

    def __init__(self, folder: Path, spec: CycleSpec = SPEC) -> None:
        names = ids(60)
        self.dataset = DatasetRecord(
            DatasetSpec("toy", "/nowhere"),
            CLASSES,
            tuple(ImageRecord(name, f"{name}.jpg", 32, 32) for name in names),
            names[:10],
            names[20:],
            names[10:15],
            names[15:20],
            IngestReport(60, 0, 0, 0, 0, 60),
            0.0,
        )
        self.stores = memory_stores()
        self.stores.datasets.add(self.dataset)
        self.begin(NAME, spec)
        self.detector, self.proxies = FakeDetector(), FakeProxies()
        self.ports = driver.DriverPorts(self.stores, FileArtifacts(folder), self._bench)

    def _bench(self, record: CycleRecord, split: PoolSplit, report: Report) -> cycle.Workbench:
        known = Annotations.empty((*split.labelled, *split.scoring, *split.test))
        return cycle.Workbench(
            record.id,
            record.spec,
            split,
            CLASSES,
            known,
            self.detector,
            self.proxies,
            lambda name: STRATEGIES[name](),
        )

    def begin(self, name: str, spec: CycleSpec = SPEC) -> None:
        self.stores.cycles.create(CycleRecord(name, spec, Status.QUEUED, 0, 0.0, 0.0), None, "")

    def drive(self, name: str = NAME) -> CycleRecord:
        return driver.drive(name, self.ports, "test")

    def selection(self) -> Selection:
        text = self.stores.cycles.document(NAME, "selection")
        assert text is not None
        return codec.decode(Selection, text)

    def report(self, name: str = NAME) -> CycleReport:
        text = self.stores.cycles.document(name, "report")
        assert text is not None
        return codec.decode(CycleReport, text)

    def annotate(self) -> None:
        answers = Annotations.empty(one.image_id for one in self.selection().images)
        self.stores.datasets.add_labels("toy", NAME, answers)
        record = self.stores.cycles.get(NAME)
        self.stores.cycles.put(replace(record, status=Status.ANNOTATED), None)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_a_cycle_goes_from_queued_to_its_selection(rig: Rig) -> None:
    assert rig.drive().status is Status.SELECTED
    chosen = [one.image_id for one in rig.selection().images]
    assert len(set(chosen)) == 5
    assert set(chosen) <= set(rig.dataset.unlabelled)
    assert [record.index for record in rig.stores.table.records(NAME)] == list(range(8))
    assert [phase.phase for phase in rig.report().phases] == [
        "FITTING", "OBSERVING", "TRAINING_PROXIES", "TRAINING_AGENT",
    ]  # fmt: skip


def test_test_images_are_never_trained_on(rig: Rig) -> None:
    rig.drive()
    rig.annotate()
    rig.drive()
    for trained in rig.detector.fits:
        assert not set(trained) & {*rig.dataset.test, *rig.dataset.scoring}


def test_annotations_lead_to_a_detector_scored_before_and_after(rig: Rig) -> None:
    rig.drive()
    rig.annotate()
    assert rig.drive().status is Status.SUCCEEDED
    assert rig.report().test_before == pytest.approx(0.30)  # ten labelled images
    assert rig.report().test_after == pytest.approx(0.35)  # and five chosen ones


def tried_before(report: CycleReport) -> int:
    assert report.evidence is not None
    return sum(one.earlier for one in report.evidence.trials)


def test_the_next_cycle_counts_what_classical_strategies_gained_before(tmp_path: Path) -> None:
    rig = Rig(tmp_path, WITHOUT_LABELS)
    rig.drive()
    rig.annotate()
    rig.drive()
    first = rig.report().evidence
    assert first is not None
    tried = sum(one.design in STRATEGIES for one in first.table)
    assert tried > 2
    assert tried_before(rig.report()) == 0
    rig.begin("cyc_1", WITHOUT_LABELS)
    rig.drive("cyc_1")
    assert tried_before(rig.report("cyc_1")) == tried
    rig.begin("cyc_2", replace(WITHOUT_LABELS, metric="ap", reward="ap50"))
    rig.drive("cyc_2")
    assert tried_before(rig.report("cyc_2")) == tried
    rig.begin("cyc_3", replace(WITHOUT_LABELS, reward="ap30"))  # its gains are no gains of AP50
    rig.drive("cyc_3")
    assert tried_before(rig.report("cyc_3")) == 0


def test_what_earlier_cycles_found_is_read_once(rig: Rig) -> None:
    """A cycle whose driver died chooses as it would have, whatever was answered in between."""
    rig.begin("cyc_1")
    rig.proxies = FakeProxies(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        rig.drive("cyc_1")
    rig.proxies = FakeProxies()
    rig.drive()
    rig.annotate()
    rig.drive("cyc_1")
    assert tried_before(rig.report("cyc_1")) == 0


def test_a_report_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    rig = Rig(tmp_path, WITHOUT_LABELS)
    rig.drive()
    rig.annotate()
    rig.drive()
    rig.stores.cycles.put_document(NAME, "report", '{"of": "another version"}', None)
    rig.begin("cyc_1", WITHOUT_LABELS)
    assert rig.drive("cyc_1").status is Status.SELECTED
    assert tried_before(rig.report("cyc_1")) == 0


def test_a_driver_that_dies_loses_no_record(rig: Rig, tmp_path: Path) -> None:
    rig.proxies = FakeProxies(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        rig.drive()
    assert rig.stores.table.count(NAME) == 3
    rig.proxies = FakeProxies()
    assert rig.drive().status is Status.SELECTED
    assert len(rig.proxies.trained) == 5
    assert len(rig.detector.fits) == 1  # the observation was kept: no second fit
    calm = Rig(tmp_path / "calm")
    calm.drive()
    assert rig.selection().images == calm.selection().images


def starting_from(start: Literal["initial", "detector"]) -> CycleSpec:
    return replace(SPEC, table=replace(SPEC.table, start=start))


def test_proxies_start_from_the_detector_s_weights_if_told_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path, starting_from("detector"))
    rig.drive()
    assert rig.proxies.starts[0]["weight"].tolist() == [1.0] * 3
    rig = Rig(tmp_path / "initial", starting_from("initial"))
    rig.drive()
    assert not rig.proxies.starts


def test_a_restarted_driver_hands_over_the_weights_it_did_not_fit(tmp_path: Path) -> None:
    rig = Rig(tmp_path, starting_from("detector"))
    rig.proxies = FakeProxies(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        rig.drive()
    rig.detector, rig.proxies = FakeDetector(), FakeProxies()
    rig.drive()
    assert rig.detector.fits == []
    assert rig.proxies.starts[0]["weight"].tolist() == [1.0] * 3


def test_a_detector_whose_kept_weights_are_damaged_is_fitted_again(tmp_path: Path) -> None:
    rig = Rig(tmp_path, starting_from("detector"))
    rig.proxies = FakeProxies(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        rig.drive()
    (tmp_path / NAME / "detector.safetensors").write_bytes(b"damaged")
    rig.proxies = FakeProxies()
    rig.drive()
    assert rig.detector.fits == [rig.dataset.labelled] * 2
    assert set(rig.proxies.starts) == {0}


def test_proxies_share_a_seed_or_have_one_each_and_the_records_hold_it(tmp_path: Path) -> None:
    for common, count in ((True, 1), (False, 8)):
        table = replace(SPEC.table, common_draws=common)
        rig = Rig(tmp_path / str(count), replace(SPEC, table=table))
        rig.drive()
        assert len({one.seed for one in rig.proxies.specs.values()}) == count
        records = rig.stores.table.records(NAME)
        told = {index: one.seed for index, one in rig.proxies.specs.items()}
        assert {record.index: record.seed for record in records} == told


def test_a_restarted_driver_gives_a_proxy_the_seed_it_would_have_had(tmp_path: Path) -> None:
    spec = replace(SPEC, table=replace(SPEC.table, common_draws=False))
    broken, calm = Rig(tmp_path / "broken", spec), Rig(tmp_path / "calm", spec)
    broken.proxies = FakeProxies(dies_after=3)
    with pytest.raises(KeyboardInterrupt):
        broken.drive()
    broken.proxies = FakeProxies()
    broken.drive()
    calm.drive()
    assert broken.proxies.specs == {at: calm.proxies.specs[at] for at in range(3, 8)}


def test_failed_proxies_are_named_and_the_cycle_goes_on(rig: Rig) -> None:
    rig.proxies = FakeProxies(bad=frozenset({1, 6}))
    assert rig.drive().status is Status.SELECTED
    assert rig.report().failed_proxies == ("proxy 1: made to fail", "proxy 6: made to fail")
    assert rig.report().words[0].startswith("The table has 6 of 8 records: 2 proxies failed")


def test_too_few_records_fail_the_cycle_with_the_first_cause(rig: Rig) -> None:
    rig.proxies = FakeProxies(bad=frozenset(range(1, 8)))
    record = rig.drive()
    assert record.status is Status.FAILED
    assert record.problem is not None
    assert record.problem.code == "TooFewRecords"
    assert "proxy 1: made to fail" in record.problem.detail
    assert len(rig.report().failed_proxies) == 7


def test_a_classical_strategy_trains_no_proxy(tmp_path: Path) -> None:
    rig = Rig(tmp_path, replace(SPEC, strategy="coreset"))
    assert rig.drive().status is Status.SELECTED
    assert rig.proxies.trained == []
    assert rig.selection().strategy == "coreset"


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
    rig.stores.datasets.add_labels(
        "toy", "cyc_other", Annotations.empty(rig.dataset.unlabelled[:3])
    )
    rig.proxies = FakeProxies()
    rig.drive()
    assert rig.report().unlabelled == 40


def test_a_cycle_of_another_version_fails_and_says_so(rig: Rig) -> None:
    rig.stores.cycles.put_document(NAME, "split", '{"of": "another version"}', None)
    record = rig.drive()
    assert record.status is Status.FAILED
    assert record.problem is not None
    assert record.problem.code == "Unreadable"
    assert record.problem.detail.startswith("pool of cycle 'cyc_0' is stored in a form that cannot")


def test_the_story_is_told_in_events(rig: Rig) -> None:
    rig.drive()
    events = rig.stores.events.read(NAME, "0", 1000)
    states = [e.data["status"] for e in events if e.kind == "cycle.state_changed"]
    assert states == ["FITTING", "OBSERVING", "TRAINING_PROXIES", "TRAINING_AGENT", "SELECTED"]
    proxies = [e.data for e in events if e.data.get("phase") == "TRAINING_PROXIES"]
    assert proxies[-1]["done"] == 8

"""The process that drives a cycle: it takes the lease, does what the status asks for, and writes
how that ended.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from mgral_service import codec, cycle
from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.errors import (
    Conflict,
    IllegalTransition,
    LeaseHeld,
    MgralError,
    StaleLease,
    Unavailable,
    Unreadable,
)
from mgral_service.domain.evidence import CycleReport, TablePoint
from mgral_service.domain.pool import PoolSplit, split_of
from mgral_service.domain.ports import ArtifactStore, Report, Weights
from mgral_service.domain.records import (
    CycleRecord,
    LookupRecord,
    Problem,
    Progress,
    Selection,
    Status,
)
from mgral_service.store import Stores
from mgral_service.store.artifacts import arrays_to_observation, observation_to_arrays

LEASE_S = 15.0  # a dead driver's cycle can be taken over after this long
PROGRESS_S = 0.5  # between two progress events of one phase

Tell = Callable[[str, Mapping[str, Any]], None]
"""Shows an event (kind, data) to whoever watches the driver's own process."""


@dataclass(frozen=True, slots=True, eq=False)
class DriverPorts:
    """`workbench` loads the images of a cycle: called once, when the lease is held."""

    stores: Stores
    artifacts: ArtifactStore
    workbench: Callable[[CycleRecord, PoolSplit, Report], cycle.Workbench]


def this_process() -> str:
    """As the owner of a lease."""
    return f"{socket.gethostname()}/{os.getpid()}"


def drive(
    name: str, ports: DriverPorts, owner: str, tell: Tell = lambda kind, data: None
) -> CycleRecord:
    """Bring a cycle to its next resting place: SELECTED, SUCCEEDED or FAILED.

    A cycle that waits for annotations or has ended is left as it is. Raises LeaseHeld while another
    driver lives, StaleLease or IllegalTransition when the cycle was taken away or cancelled, and
    Unavailable when the store is gone for good: all of them leave the cycle as it stands.
    """
    record = ports.stores.cycles.get(name)
    if not record.status.driven:
        return record
    with _leased(name, ports, owner, tell) as journal:
        if not journal.record.status.driven:  # another driver's work, while this one waited
            return journal.record
        try:
            _work(journal, ports)
        except (Conflict, Unavailable):
            raise
        except Exception as error:
            journal.fail(error)
            if not isinstance(error, MgralError):
                raise
    return ports.stores.cycles.get(name)


def _work(journal: StoredJournal, ports: DriverPorts) -> None:
    record = journal.record
    labels = ports.stores.datasets.labels(record.spec.dataset)
    text = ports.stores.cycles.document(record.id, "split")
    if text is None:
        dataset = ports.stores.datasets.get(record.spec.dataset)
        split = split_of(dataset, [answered for _, answered in labels])
        journal.keep("split", split)
    else:  # later answers to other cycles change nothing here
        split = codec.stored(PoolSplit, text, "pool of cycle", record.id)
    bench = ports.workbench(record, split, journal.progress)
    if record.status.order < Status.SELECTED.order:
        answered = [name for name, _ in labels][: max(split.labelled.values(), default=0)]
        earlier = tuple(_earlier(record, answered, ports))
        cycle.run(replace(bench, earlier=earlier), journal)
    else:
        answers = dict(labels)[record.id]
        cycle.evaluate(bench, answers, journal)


def _earlier(
    record: CycleRecord, answered: Sequence[str], ports: DriverPorts
) -> Iterator[tuple[TablePoint, ...]]:
    """Records of answered cycles with the same detector and reward, whose gains are alike."""
    for name in answered:
        text = ports.stores.cycles.document(name, "report")
        if text is None:
            continue
        with suppress(Unreadable):  # of a version that wrote other reports: it tells nothing
            report = codec.stored(CycleReport, text, "report of cycle", name)
            same = report.spec.rewarded_by == record.spec.rewarded_by
            if same and report.spec.detector.name == record.spec.detector.name and report.evidence:
                yield report.evidence.table


class StoredJournal:
    """cycle.Journal over the stores. Each write carries the lease, so a driver that lost it is
    refused; each call raises what the heartbeat found.
    """

    def __init__(self, record: CycleRecord, lease: int, ports: DriverPorts, tell: Tell) -> None:
        self.record, self.lease, self._watcher = record, lease, tell
        self._stores, self._artifacts = ports.stores, ports.artifacts
        self._lost: MgralError | None = None
        self._told: tuple[str, float] = ("", 0.0)

    def heartbeat(self) -> None:
        """Renew the lease and look whether the cycle was cancelled."""
        with suppress(Unavailable):  # the store may come back before the lease is missed
            try:
                self._stores.cycles.renew(self.record.id, self.lease, LEASE_S)
            except StaleLease as error:
                self._lost = error
            status = self._stores.cycles.get(self.record.id).status
            if status.terminal:
                self._lost = IllegalTransition(self.record.id, status, "a driver's next step")

    def _check(self) -> None:
        if self._lost is not None:
            raise self._lost

    def clock(self) -> float:
        return time.monotonic()

    def enter(self, status: Status) -> None:
        self._check()
        if status.order <= self.record.status.order:
            return  # a restarted driver repeats a step: the status stays where it was
        self.record = replace(self.record, status=status, updated=time.time())
        self._stores.cycles.put(self.record, self.lease)
        self._tell("cycle.state_changed", {"status": status.value})

    def progress(self, progress: Progress) -> None:
        self._check()
        phase, told = self._told
        now = time.monotonic()
        if phase == progress.phase and now - told < PROGRESS_S and progress.done < progress.total:
            return
        self._told = (progress.phase, now)
        self._tell("progress", codec.plain(progress))

    def _tell(self, kind: str, data: Mapping[str, Any]) -> None:
        self._stores.events.append(self.record.id, kind, {**data, "time": time.time()})
        self._watcher(kind, data)

    def fail(self, error: Exception) -> None:
        problem = Problem(type(error).__name__, str(error) or repr(error))
        self.record = replace(
            self.record, status=Status.FAILED, problem=problem, updated=time.time()
        )
        self._stores.cycles.put(self.record, self.lease)
        self._tell("cycle.state_changed", {"status": "FAILED", **codec.plain(problem)})

    def keep(self, name: str, value: Any) -> None:
        """Attach a value to the cycle as a JSON document."""
        self._check()
        self._stores.cycles.put_document(self.record.id, name, codec.encode(value), self.lease)

    def observation(self) -> PoolObservation | None:
        kept = self._artifacts.get(self.record.id, "observation")
        return None if kept is None else arrays_to_observation(*kept)

    def keep_observation(self, observation: PoolObservation) -> None:
        self._keep_arrays("observation", *observation_to_arrays(observation))

    def records(self) -> tuple[LookupRecord, ...]:
        return self._stores.table.records(self.record.id)

    def keep_record(self, record: LookupRecord) -> None:
        self._check()
        self._stores.table.put(record, self.lease)

    def report(self) -> CycleReport | None:
        text = self._stores.cycles.document(self.record.id, "report")
        if text is None:
            return None
        return codec.stored(CycleReport, text, "report of cycle", self.record.id)

    def keep_report(self, report: CycleReport) -> None:
        self.keep("report", report)

    def keep_agent(self, arrays: Mapping[str, Any], winner: str) -> None:
        self._keep_arrays("agent", arrays, {"winner": winner})

    def keep_selection(self, selection: Selection) -> None:
        self.keep("selection", selection)

    def detector(self) -> Weights | None:
        kept = self._artifacts.get(self.record.id, "detector")
        return None if kept is None else kept[0]

    def keep_detector(self, weights: Weights) -> None:
        self._keep_arrays("detector", weights, {"dataset": self.record.spec.dataset})

    def keep_retrained(self, weights: Weights) -> None:
        self._keep_arrays("retrained", weights, {"dataset": self.record.spec.dataset})

    def _keep_arrays(self, name: str, arrays: Mapping[str, Any], words: Mapping[str, str]) -> None:
        self._check()
        self._artifacts.put(self.record.id, name, arrays, words)


@contextmanager
def _leased(name: str, ports: DriverPorts, owner: str, tell: Tell) -> Iterator[StoredJournal]:
    """The cycle's journal while this process holds its lease, renewed by a thread."""
    cycles = ports.stores.cycles
    lease = acquire(name, ports, owner)
    journal = StoredJournal(cycles.get(name), lease, ports, tell)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(LEASE_S / 3):
            journal.heartbeat()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield journal
    finally:
        stop.set()
        thread.join()
        with suppress(StaleLease, Unavailable):  # it lapses by itself
            cycles.release(name, lease)


def acquire(name: str, ports: DriverPorts, owner: str) -> int:
    """The lease, waiting for a dead driver's to lapse."""
    deadline = time.monotonic() + LEASE_S + 5
    while True:
        try:
            return ports.stores.cycles.acquire(name, owner, LEASE_S)
        except LeaseHeld:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)

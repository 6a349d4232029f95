"""The process that drives a cycle: it takes the lease, does what the status asks for, and writes
how that ended.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from mgral_service import codec
from mgral_service.cycle.context import CycleContext
from mgral_service.cycle.run import evaluate, run
from mgral_service.domain.boxes import PoolPredictions
from mgral_service.domain.errors import (
    Conflict,
    IllegalTransition,
    LeaseHeld,
    MgralError,
    StaleLease,
    Unavailable,
)
from mgral_service.domain.pool import PoolSplit, split_of
from mgral_service.domain.ports import ArtifactStore, Report, Stores, Weights
from mgral_service.domain.records import (
    CycleRecord,
    LookupRecord,
    Problem,
    Progress,
    Selection,
    Status,
)
from mgral_service.domain.report import CycleReport
from mgral_service.store.artifacts import arrays_to_predictions, predictions_to_arrays

LEASE_S = 15.0  # a dead driver's cycle can be taken over after this long
PROGRESS_S = 0.5  # between two progress events of one phase

Watch = Callable[[str, Mapping[str, Any]], None]
"""Shows an event (kind, data) to whoever watches the driver's own process."""


@dataclass(frozen=True, slots=True, eq=False)
class DriverPorts:
    """cycle_context: loads the images of a cycle; called once, when the lease is held."""

    stores: Stores
    artifacts: ArtifactStore
    cycle_context: Callable[[CycleRecord, PoolSplit, Report], CycleContext]


def this_process() -> str:
    """As the owner of a lease."""
    return f"{socket.gethostname()}/{os.getpid()}"


def drive(
    name: str, ports: DriverPorts, owner: str, watch: Watch = lambda kind, data: None
) -> CycleRecord:
    """Bring a cycle to its next resting place: SELECTED, SUCCEEDED or FAILED.

    A cycle that waits for annotations or has ended is left as it is. Raises LeaseHeld while another
    driver lives, StaleLease or IllegalTransition when the cycle was taken away or cancelled, and
    Unavailable when the store is gone for good: all of them leave the cycle as it stands.
    """
    record = ports.stores.cycles.get(name)
    if not record.status.driven:
        return record
    with _leased(name, ports, owner, watch) as cycle_log:
        if not cycle_log.record.status.driven:  # another driver's work, while this one waited
            return cycle_log.record
        try:
            _work(cycle_log, ports)
        except (Conflict, Unavailable):
            raise
        except Exception as error:
            cycle_log.fail(error)
            if not isinstance(error, MgralError):
                raise
    return ports.stores.cycles.get(name)


def _work(cycle_log: StoredCycleLog, ports: DriverPorts) -> None:
    record = cycle_log.record
    labels = ports.stores.datasets.labels(record.spec.dataset)
    text = ports.stores.cycles.attachment(record.id, "split")
    if text is None:
        images = ports.stores.datasets.images(record.spec.dataset)
        split = split_of(images, [answers for _, answers in labels], record.spec)
        cycle_log.attach("split", split)
    else:  # later answers to other cycles change nothing here
        split = codec.stored(PoolSplit, text, "pool of cycle", record.id)
    context = ports.cycle_context(record, split, cycle_log.progress)
    if record.status.order < Status.SELECTED.order:
        run(context, cycle_log)
    else:
        evaluate(context, dict(labels)[record.id], cycle_log)


class StoredCycleLog:
    """cycle.CycleLog over the stores. Each write carries the lease, so a driver that lost it is
    refused; each call raises what the heartbeat found.
    """

    def __init__(self, record: CycleRecord, lease: int, ports: DriverPorts, watch: Watch) -> None:
        self.record, self.lease, self._watcher = record, lease, watch
        self._stores, self._artifacts = ports.stores, ports.artifacts
        self._lost: MgralError | None = None
        self._last_progress: tuple[str, float] = ("", 0.0)

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
        self._move(status)

    def progress(self, progress: Progress) -> None:
        self._check()
        phase, reported = self._last_progress
        now = time.monotonic()
        if (
            phase == progress.phase
            and now - reported < PROGRESS_S
            and progress.done < progress.total
        ):
            return
        self._last_progress = (progress.phase, now)
        self._emit("progress", codec.plain(progress))

    def _emit(self, kind: str, data: Mapping[str, Any]) -> None:
        self._stores.events.append(self.record.id, kind, {**data, "time": time.time()})
        self._watcher(kind, data)

    def fail(self, error: Exception) -> None:
        problem = Problem(type(error).__name__, str(error) or repr(error))
        self._move(Status.FAILED, problem)

    def _move(self, status: Status, problem: Problem | None = None) -> None:
        self.record = replace(self.record, status=status, problem=problem, updated=time.time())
        self._stores.cycles.put(self.record, self.lease)
        detail = {} if problem is None else codec.plain(problem)
        self._emit("cycle.state_changed", {"status": status.value, **detail})

    def attach(self, name: str, value: Any) -> None:
        """Attach a value to the cycle as JSON."""
        self._check()
        self._stores.cycles.put_attachment(self.record.id, name, codec.encode(value), self.lease)

    def predictions(self, part: str) -> PoolPredictions | None:
        stored = self._artifacts.get(self.record.id, f"predictions-{part}")
        return None if stored is None else arrays_to_predictions(*stored)

    def save_predictions(self, part: str, predictions: PoolPredictions) -> None:
        self._save_arrays(f"predictions-{part}", *predictions_to_arrays(predictions))

    def weights(self, part: str) -> Weights | None:
        stored = self._artifacts.get(self.record.id, f"weights-{part}")
        return None if stored is None else stored[0]

    def save_weights(self, part: str, weights: Weights) -> None:
        self._save_arrays(f"weights-{part}", weights, {"dataset": self.record.spec.dataset})

    def records(self) -> tuple[LookupRecord, ...]:
        return self._stores.table.records(self.record.id)

    def save_record(self, record: LookupRecord) -> None:
        self._check()
        self._stores.table.put(record, self.lease)

    def report(self) -> CycleReport | None:
        text = self._stores.cycles.attachment(self.record.id, "report")
        if text is None:
            return None
        return codec.stored(CycleReport, text, "report of cycle", self.record.id)

    def save_report(self, report: CycleReport) -> None:
        self.attach("report", report)

    def save_agent(self, arrays: Mapping[str, Any], winner: str) -> None:
        self._save_arrays("agent", arrays, {"winner": winner})

    def save_selection(self, selection: Selection) -> None:
        self.attach("selection", selection)

    def _save_arrays(
        self, name: str, arrays: Mapping[str, Any], metadata: Mapping[str, str]
    ) -> None:
        self._check()
        self._artifacts.put(self.record.id, name, arrays, metadata)


@contextmanager
def _leased(name: str, ports: DriverPorts, owner: str, watch: Watch) -> Iterator[StoredCycleLog]:
    """The cycle's cycle_log while this process holds its lease, renewed by a thread."""
    cycles = ports.stores.cycles
    lease = acquire(name, ports, owner)
    cycle_log = StoredCycleLog(cycles.get(name), lease, ports, watch)
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(LEASE_S / 3):
            cycle_log.heartbeat()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield cycle_log
    finally:
        stop.set()
        thread.join()
        with suppress(StaleLease, Unavailable):  # it lapses by itself
            cycles.release(name, lease)


def acquire(name: str, ports: DriverPorts, owner: str) -> int:
    """The lease, waiting for a dead driver's to lapse. LeaseHeld if the other driver lives."""
    patient = Retrying(
        retry=retry_if_exception_type(LeaseHeld),
        stop=stop_after_delay(LEASE_S + 5),
        wait=wait_fixed(0.5),
        reraise=True,
    )
    return patient(ports.stores.cycles.acquire, name, owner, LEASE_S)

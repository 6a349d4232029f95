"""The record stores in the memory of one process: the double that tests use, and its own proof."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mgral_service import codec
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import (
    AlreadyExists,
    IdempotencyMismatch,
    IllegalTransition,
    LeaseHeld,
    NotFound,
    StaleLease,
)
from mgral_service.domain.ports import Stores
from mgral_service.domain.records import (
    CycleRecord,
    DatasetImages,
    DatasetRecord,
    Event,
    LookupRecord,
)
from mgral_service.store.serialization import event_order

EVENTS_KEPT = 10_000  # a cycle
EVENTS_SEARCHED = 100  # by EventLog.last


def memory_stores(clock: Callable[[], float] = time.monotonic) -> Stores:
    """Empty stores. `clock` in seconds decides when a lease has expired."""
    cycles = MemoryCycles(clock)
    return Stores(cycles, MemoryTable(cycles), MemoryEvents(), MemoryDatasets())


@dataclass(slots=True, eq=False)
class _Entry:
    record: CycleRecord
    fence: int = 0  # last token given out
    owner: str | None = None  # None: nobody holds the lease
    expires: float = 0.0
    attachments: dict[str, str] = field(default_factory=dict)


class MemoryCycles:
    """CycleStore. `number` is the store's; `attempts` never falls and takes its `job` along."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._cycles: dict[str, _Entry] = {}  # in the order of creation
        self._claims: dict[str, tuple[str, str]] = {}
        self._numbers: dict[str, int] = {}

    def create(self, record: CycleRecord, key: str | None, fingerprint: str) -> CycleRecord:
        with self._lock:
            earlier = None if key is None else self.claimed(key, fingerprint)
            if earlier is not None:
                return earlier
            if record.id in self._cycles:
                return self.get(record.id)
            number = self._numbers.get(record.spec.dataset, 0) + 1
            self._numbers[record.spec.dataset] = number
            self._cycles[record.id] = _Entry(replace(record, number=number))
            if key is not None:
                self._claims[key] = (fingerprint, record.id)
            return self.get(record.id)

    def claimed(self, key: str, fingerprint: str) -> CycleRecord | None:
        claimed_by, cycle = self._claims.get(key, (fingerprint, None))
        if claimed_by != fingerprint:
            raise IdempotencyMismatch(key)
        return None if cycle is None else self.get(cycle)

    def get(self, cycle: str) -> CycleRecord:
        return self._find(cycle).record

    def put(self, record: CycleRecord, lease: int | None) -> None:
        with self._lock:
            entry = self.guard(record.id, lease)
            old = entry.record
            if record.status is not old.status and not old.status.may_become(record.status):
                raise IllegalTransition(record.id, old.status, record.status)
            job, attempts = old.job, old.attempts
            if record.attempts > attempts or (record.attempts == attempts and record.job):
                job, attempts = record.job, record.attempts
            entry.record = replace(record, number=old.number, job=job, attempts=attempts)

    def page(self, after: str | None, limit: int) -> tuple[CycleRecord, ...]:
        with self._lock:
            newest = list(reversed(self._cycles))
            if after is not None:
                self._find(after)
                newest = newest[newest.index(after) + 1 :]
            return tuple(self._cycles[cycle].record for cycle in newest[:limit])

    def acquire(self, cycle: str, owner: str, ttl_s: float) -> int:
        with self._lock:
            entry = self._find(cycle)
            if entry.owner is not None and entry.expires > self._clock():
                raise LeaseHeld(cycle, entry.owner)
            entry.fence += 1
            entry.owner, entry.expires = owner, self._clock() + ttl_s
            return entry.fence

    def renew(self, cycle: str, lease: int, ttl_s: float) -> None:
        with self._lock:
            self.guard(cycle, lease).expires = self._clock() + ttl_s

    def release(self, cycle: str, lease: int) -> None:
        with self._lock:
            self.guard(cycle, lease).owner = None

    def holder(self, cycle: str) -> str | None:
        with self._lock:
            entry = self._find(cycle)
            return entry.owner if entry.expires > self._clock() else None

    def put_attachment(self, cycle: str, name: str, text: str, lease: int | None) -> None:
        with self._lock:
            self.guard(cycle, lease).attachments[name] = text

    def attachment(self, cycle: str, name: str) -> str | None:
        return self._find(cycle).attachments.get(name)

    def guard(self, cycle: str, lease: int | None) -> _Entry:
        """The cycle; StaleLease unless `lease` is the last one given out and still held."""
        with self._lock:
            entry = self._find(cycle)
            if lease is not None and (entry.owner is None or lease != entry.fence):
                raise StaleLease(cycle, lease)
            return entry

    def _find(self, cycle: str) -> _Entry:
        try:
            return self._cycles[cycle]
        except KeyError:
            raise NotFound("cycle", cycle) from None


class MemoryTable:
    """LookupStore, fenced by the leases of `cycles`."""

    def __init__(self, cycles: MemoryCycles) -> None:
        self._cycles = cycles
        self._lock = threading.Lock()
        self._records: dict[str, dict[int, LookupRecord]] = {}

    def put(self, record: LookupRecord, lease: int) -> bool:
        codec.encode(record)  # what JSON cannot hold is refused here as elsewhere
        with self._lock:
            self._cycles.guard(record.cycle, lease)
            mine = self._records.setdefault(record.cycle, {})
            return mine.setdefault(record.index, record) is record

    def records(self, cycle: str) -> tuple[LookupRecord, ...]:
        with self._lock:
            return tuple(record for _, record in sorted(self._records.get(cycle, {}).items()))

    def count(self, cycle: str) -> int:
        return len(self._records.get(cycle, {}))


class MemoryEvents:
    """EventLog with ids in the form of a Redis Stream's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, list[Event]] = {}
        self._count = 0

    def append(self, cycle: str, kind: str, data: Mapping[str, Any]) -> str:
        text = codec.encode_loose(data)
        with self._lock:
            self._count += 1
            event = Event(f"{self._count}-0", kind, json.loads(text))
            mine = self._events.setdefault(cycle, [])
            mine.append(event)
            del mine[:-EVENTS_KEPT]
            return event.id

    def read(self, cycle: str, after: str, limit: int) -> tuple[Event, ...]:
        start = event_order(after)
        with self._lock:
            mine = self._events.get(cycle, [])
            return tuple(event for event in mine if event_order(event.id) > start)[:limit]

    def last(self, cycle: str, kind: str, phase: str | None = None) -> Event | None:
        with self._lock:
            recent = self._events.get(cycle, [])[-EVENTS_SEARCHED:]
        return next((event for event in reversed(recent) if event.tells(kind, phase)), None)


class MemoryDatasets:
    """DatasetStore."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._datasets: dict[str, tuple[DatasetRecord, DatasetImages]] = {}
        self._labels: dict[str, dict[str, Annotations]] = {}

    def add(self, record: DatasetRecord, images: DatasetImages) -> DatasetRecord:
        with self._lock:
            stored, _ = self._datasets.setdefault(record.spec.name, (record, images))
        if stored.spec != record.spec:
            raise AlreadyExists("dataset", record.spec.name)
        return stored

    def get(self, name: str) -> DatasetRecord:
        return self._find(name)[0]

    def images(self, name: str) -> DatasetImages:
        return self._find(name)[1]

    def page(self, after: str | None, limit: int) -> tuple[DatasetRecord, ...]:
        with self._lock:
            names = sorted(name for name in self._datasets if after is None or name > after)
            return tuple(self._datasets[name][0] for name in names[:limit])

    def labelled_since(self, name: str) -> int:
        return len({image_id for _, labels in self.labels(name) for image_id in labels.ids})

    def add_labels(self, name: str, cycle: str, labels: Annotations) -> None:
        self._find(name)
        with self._lock:
            self._labels.setdefault(name, {})[cycle] = labels

    def labels(self, name: str) -> tuple[tuple[str, Annotations], ...]:
        self._find(name)
        with self._lock:
            return tuple(self._labels.get(name, {}).items())

    def _find(self, name: str) -> tuple[DatasetRecord, DatasetImages]:
        try:
            return self._datasets[name]
        except KeyError:
            raise NotFound("dataset", name) from None

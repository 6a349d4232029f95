"""The record stores in a Redis or Valkey server: JSON and bytes, one Lua script a step."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

from mgral_service import codec
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import (
    AlreadyExists,
    IdempotencyMismatch,
    IllegalTransition,
    LeaseHeld,
    NotFound,
    StaleLease,
    Unreadable,
)
from mgral_service.domain.records import CycleRecord, DatasetRecord, Event, LookupRecord, Status
from mgral_service.store import Stores, scripts
from mgral_service.store.forms import annotations_from_json, annotations_to_json, event_order
from mgral_service.store.link import Link

DRIVER_PATIENCE_S = 20.0  # a server may take this long to restart
KEYS_KEPT_S = 7 * 24 * 3600  # how long an Idempotency-Key is remembered
EVENTS_KEPT = 10_000  # a cycle, about
EVENTS_SEARCHED = 100  # by EventLog.last

logger = logging.getLogger(__name__)

T = TypeVar("T")


def redis_stores(url: str, prefix: str = "mgral:", patience_s: float = DRIVER_PATIENCE_S) -> Stores:
    """The stores at `url`; nothing is connected yet. Calls raise Unavailable after `patience_s`."""
    link = Link(url, prefix, patience_s)
    return Stores(RedisCycles(link), RedisTable(link), RedisEvents(link), RedisDatasets(link))


def ping(url: str, patience_s: float = 0.0) -> None:
    """Unavailable unless the server writes and reads."""
    link = Link(url, "mgral:", patience_s)
    link.call(lambda client: client.set(link.key("ping"), "1", ex=60))


class RedisCycles:
    """CycleStore. `number` is the store's; `attempts` never falls and takes its `job` along."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._listing = _Listing()

    def create(self, record: CycleRecord, key: str | None, fingerprint: str) -> CycleRecord:
        link = self._link
        keys = [
            link.key("idempotency", key or ""),
            link.key("cycle", record.id),
            link.key("cycles"),
            link.key("sequence"),
            link.key("numbers"),
        ]
        answer, *rest = link.script(
            scripts.CREATE,
            keys,
            int(key is not None),
            fingerprint,
            record.id,
            codec.encode(record),
            record.status.order,
            record.status.value,
            record.spec.dataset,
            KEYS_KEPT_S,
            record.job or "",
            record.attempts,
        )
        if answer == "mismatch":
            raise IdempotencyMismatch(key or "")
        return self.get(rest[0])

    def claimed(self, key: str, fingerprint: str) -> CycleRecord | None:
        name = self._link.key("idempotency", key)
        known, cycle = self._link.call(lambda client: client.hmget(name, "fingerprint", "cycle"))
        if known is None:
            return None
        if known.decode() != fingerprint:
            raise IdempotencyMismatch(key)
        return self.get(cycle.decode())

    def get(self, cycle: str) -> CycleRecord:
        found = _record_of(cycle, self._rows([cycle])[0])
        if found is None:
            raise NotFound("cycle", cycle)
        return found

    def put(self, record: CycleRecord, lease: int | None) -> None:
        answer = self._link.script(
            scripts.PUT,
            [self._link.key("cycle", record.id)],
            _token(lease),
            codec.encode(record),
            record.status.order,
            record.status.value,
            Status.SUCCEEDED.order,
            record.job or "",
            record.attempts,
        )
        if answer[0] == "illegal":
            raise IllegalTransition(record.id, answer[1], record.status)
        _check(answer, record.id, lease)

    def page(self, after: str | None, limit: int) -> tuple[CycleRecord, ...]:
        if limit < 1:
            return ()
        link, index, start = self._link, self._link.key("cycles"), 0
        if after is not None:
            rank = link.call(lambda client: client.zrevrank(index, after))
            if rank is None:
                raise NotFound("cycle", after)
            start = rank + 1
        return self._listing.page(start, limit, partial(_newest, link, index), self._many)

    def acquire(self, cycle: str, owner: str, ttl_s: float) -> int:
        answer = self._link.script(
            scripts.ACQUIRE,
            [self._link.key("cycle", cycle)],
            owner or "nobody",
            _milliseconds(ttl_s),
            uuid.uuid4().hex,
        )
        if answer[0] == "held":
            raise LeaseHeld(cycle, answer[1])
        _check(answer, cycle, None)
        return int(answer[1])

    def renew(self, cycle: str, lease: int, ttl_s: float) -> None:
        keys = [self._link.key("cycle", cycle)]
        answer = self._link.script(scripts.RENEW, keys, lease, _milliseconds(ttl_s))
        _check(answer, cycle, lease)

    def release(self, cycle: str, lease: int) -> None:
        keys = [self._link.key("cycle", cycle)]
        _check(self._link.script(scripts.RELEASE, keys, lease, uuid.uuid4().hex), cycle, lease)

    def holder(self, cycle: str) -> str | None:
        answer = self._link.script(scripts.HOLDER, [self._link.key("cycle", cycle)])
        _check(answer, cycle, None)
        return answer[1] or None

    def put_document(self, cycle: str, name: str, text: str, lease: int | None) -> None:
        keys = [self._link.key("cycle", cycle), self._link.key("documents", cycle)]
        _check(
            self._link.script(scripts.PUT_FIELD, keys, _token(lease), name, text, 0), cycle, lease
        )

    def document(self, cycle: str, name: str) -> str | None:
        key = self._link.key("documents", cycle)
        text = self._link.call(lambda client: client.hget(key, name))
        if text is None:
            self.get(cycle)
        return None if text is None else text.decode()

    def _many(self, cycles: Sequence[str]) -> list[CycleRecord | Unreadable | None]:
        rows = self._rows(cycles) if cycles else []
        return [
            _or_error(partial(_record_of, cycle, row))
            for cycle, row in zip(cycles, rows, strict=True)
        ]

    def _rows(self, cycles: Sequence[str]) -> list[list[bytes | None]]:
        fields = ["record", "number", "job", "attempts"]

        def read(client: Any) -> list[list[bytes | None]]:
            pipe = client.pipeline(transaction=False)
            for cycle in cycles:
                pipe.hmget(self._link.key("cycle", cycle), fields)
            found: list[list[bytes | None]] = pipe.execute()
            return found

        found: list[list[bytes | None]] = self._link.call(read)
        return found


class RedisTable:
    """LookupStore: a hash a cycle, fenced by the cycle's lease."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def put(self, record: LookupRecord, lease: int) -> bool:
        cycle = record.cycle
        answer = self._link.script(
            scripts.PUT_FIELD,
            [self._link.key("cycle", cycle), self._link.key("table", cycle)],
            lease,
            record.index,
            codec.encode(record),
            1,
        )
        _check(answer, cycle, lease)
        return bool(answer[1] == "1")

    def records(self, cycle: str) -> tuple[LookupRecord, ...]:
        key = self._link.key("table", cycle)
        texts = self._link.call(lambda client: client.hvals(key))
        records = (codec.stored(LookupRecord, text, "table of cycle", cycle) for text in texts)
        return tuple(sorted(records, key=lambda record: record.index))

    def count(self, cycle: str) -> int:
        key = self._link.key("table", cycle)
        return int(self._link.call(lambda client: client.hlen(key)))


class RedisEvents:
    """EventLog: a stream a cycle. A lost connection may leave an event twice."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def append(self, cycle: str, kind: str, data: Mapping[str, Any]) -> str:
        key = self._link.key("events", cycle)
        fields: Any = {"kind": kind, "data": codec.encode_loose(data)}
        event: bytes = self._link.call(
            lambda client: client.xadd(key, fields, maxlen=EVENTS_KEPT, approximate=True)
        )
        return event.decode()

    def read(self, cycle: str, after: str, limit: int) -> tuple[Event, ...]:
        key = self._link.key("events", cycle)
        major, minor = event_order(after)
        start = f"({major}-{minor}"
        rows = self._link.call(lambda client: client.xrange(key, min=start, count=limit))
        return tuple(_event_of(row) for row in rows)

    def last(self, cycle: str, kind: str, phase: str | None = None) -> Event | None:
        key = self._link.key("events", cycle)
        rows = self._link.call(lambda client: client.xrevrange(key, count=EVENTS_SEARCHED))
        events = (_event_of(row) for row in rows if row[1][b"kind"].decode() == kind)
        return next((event for event in events if event.tells(kind, phase)), None)


class RedisDatasets:
    """DatasetStore."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._listing = _Listing()

    def add(self, record: DatasetRecord) -> DatasetRecord:
        name = record.spec.name
        keys = [self._link.key("dataset", name), self._link.key("datasets")]
        answer = self._link.script(scripts.ADD_DATASET, keys, name, codec.encode(record))
        kept = codec.stored(DatasetRecord, answer[0], "dataset", name)
        if kept.spec != record.spec:
            raise AlreadyExists("dataset", name)
        return kept

    def get(self, name: str) -> DatasetRecord:
        key = self._link.key("dataset", name)
        text = self._link.call(lambda client: client.get(key))
        if text is None:
            raise NotFound("dataset", name)
        return codec.stored(DatasetRecord, text, "dataset", name)

    def page(self, after: str | None, limit: int) -> tuple[DatasetRecord, ...]:
        key, start = self._link.key("datasets"), "-" if after is None else f"({after}"

        def names_at(at: int, count: int) -> list[bytes]:
            call = self._link.call(lambda client: client.zrangebylex(key, start, "+", at, count))
            return cast("list[bytes]", call)

        def read(names: list[str]) -> list[DatasetRecord | Unreadable]:
            return [_or_error(partial(self.get, name)) for name in names]

        return self._listing.page(0, limit, names_at, read)

    def add_labels(self, name: str, cycle: str, labels: Annotations) -> None:
        keys = [self._link.key(part, name) for part in ("dataset", "labels", "labelled")]
        text = annotations_to_json(labels)
        if self._link.script(scripts.ADD_LABELS, keys, cycle, text)[0] == "missing":
            raise NotFound("dataset", name)

    def labels(self, name: str) -> tuple[tuple[str, Annotations], ...]:
        hash_key, order_key = self._link.key("labels", name), self._link.key("labelled", name)
        texts = self._link.call(lambda client: client.hgetall(hash_key))
        if not texts:
            self.get(name)
            return ()
        order = self._link.call(lambda client: client.zrange(order_key, 0, -1))
        return tuple(
            (cycle.decode(), annotations_from_json(texts[cycle]))
            for cycle in order
            if cycle in texts  # added between the two reads
        )


class _Listing:
    """Pages of what can be read; the log tells once of what cannot."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def page(
        self,
        start: int,
        limit: int,
        names_at: Callable[[int, int], list[bytes]],
        read: Callable[[list[str]], Sequence[T | Unreadable | None]],
    ) -> tuple[T, ...]:
        """names_at: names from a place on, so many at most; read: what each is, None for one that
        is gone.
        """
        page: list[T] = []
        while (wanted := limit - len(page)) > 0:
            names = names_at(start, wanted)
            for found in read([name.decode() for name in names]):
                if isinstance(found, Unreadable):
                    self._warn(found)
                elif found is not None:
                    page.append(found)
            if len(names) < wanted:
                break
            start += wanted
        return tuple(page)

    def _warn(self, found: Unreadable) -> None:
        """Once: the gateway looks at all cycles every few seconds."""
        if found.name not in self._told:
            self._told.add(found.name)
            logger.warning("%s; listings leave it out", found)


def _newest(link: Link, index: str, start: int, count: int) -> list[bytes]:
    """Cycles from a rank on."""
    end = start + count - 1
    return cast("list[bytes]", link.call(lambda client: client.zrevrange(index, start, end)))


def _or_error(read: Callable[[], T]) -> T | Unreadable:
    try:
        return read()
    except Unreadable as error:
        return error


def _record_of(cycle: str, row: Sequence[bytes | None]) -> CycleRecord | None:
    text, number, job, attempts = row
    if text is None or number is None or attempts is None:
        return None
    record = codec.stored(CycleRecord, text, "cycle", cycle)
    job_text = job.decode() if job else None
    return replace(record, number=int(number), job=job_text, attempts=int(attempts))


def _event_of(row: tuple[bytes, Mapping[bytes, bytes]]) -> Event:
    event, fields = row
    return Event(event.decode(), fields[b"kind"].decode(), codec.decode_loose(fields[b"data"]))


def _token(lease: int | None) -> str:
    return "" if lease is None else str(lease)


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _check(answer: Sequence[Any], cycle: str, lease: int | None) -> None:
    if answer[0] == "missing":
        raise NotFound("cycle", cycle)
    if answer[0] == "stale":
        raise StaleLease(cycle, lease or 0)

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
from mgral_service.domain.ports import Stores
from mgral_service.domain.records import (
    CycleRecord,
    DatasetImages,
    DatasetRecord,
    Event,
    LookupRecord,
    Status,
)
from mgral_service.store import scripts
from mgral_service.store.connection import Connection
from mgral_service.store.serialization import (
    annotations_from_json,
    annotations_to_json,
    event_order,
)

DRIVER_PATIENCE_S = 20.0  # a server may take this long to restart
KEYS_KEPT_S = 7 * 24 * 3600  # how long an Idempotency-Key is remembered
EVENTS_KEPT = 10_000  # a cycle, about
EVENTS_SEARCHED = 100  # by EventLog.last

logger = logging.getLogger(__name__)

T = TypeVar("T")


def redis_stores(url: str, prefix: str = "mgral:", patience_s: float = DRIVER_PATIENCE_S) -> Stores:
    """The stores at `url`; nothing is connected yet. Calls raise Unavailable after `patience_s`."""
    connection = Connection(url, prefix, patience_s)
    return Stores(
        RedisCycles(connection),
        RedisTable(connection),
        RedisEvents(connection),
        RedisDatasets(connection),
    )


class RedisCycles:
    """CycleStore. `number` is the store's; `attempts` never falls and takes its `job` along."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._script = partial(_fenced, connection)
        self._listing = _Listing()

    def create(self, record: CycleRecord, key: str | None, fingerprint: str) -> CycleRecord:
        name = self._connection.key
        answer, *rest = self._connection.script(
            scripts.CREATE,
            [
                *(name("idempotency", key or ""), name("cycle", record.id)),
                *(name("cycles"), name("sequence"), name("numbers")),
            ],
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
        name = self._connection.key("idempotency", key)
        claimed_by, cycle = self._connection.call(
            lambda client: client.hmget(name, "fingerprint", "cycle")
        )
        if claimed_by is None:
            return None
        if claimed_by.decode() != fingerprint:
            raise IdempotencyMismatch(key)
        return self.get(cycle.decode())

    def get(self, cycle: str) -> CycleRecord:
        (record,) = self._read([cycle])
        if record is None:
            raise NotFound("cycle", cycle)
        if isinstance(record, Unreadable):
            raise record
        return record

    def put(self, record: CycleRecord, lease: int | None) -> None:
        answer = self._script(
            scripts.PUT,
            record.id,
            lease,
            codec.encode(record),
            record.status.order,
            record.status.value,
            Status.SUCCEEDED.order,
            record.job or "",
            record.attempts,
        )
        if answer[0] == "illegal":
            raise IllegalTransition(record.id, answer[1], record.status)

    def page(self, after: str | None, limit: int) -> tuple[CycleRecord, ...]:
        connection, index, start = self._connection, self._connection.key("cycles"), 0
        if after is not None:
            rank = connection.call(lambda client: client.zrevrank(index, after))
            if rank is None:
                raise NotFound("cycle", after)
            start = rank + 1

        def newest(start: int, count: int) -> Any:
            return connection.call(lambda client: client.zrevrange(index, start, start + count - 1))

        return self._listing.page(start, limit, newest, self._read)

    def acquire(self, cycle: str, owner: str, ttl_s: float) -> int:
        nonce, ttl_ms = uuid.uuid4().hex, _milliseconds(ttl_s)
        answer = self._script(scripts.ACQUIRE, cycle, None, owner or "nobody", ttl_ms, nonce)
        if answer[0] == "held":
            raise LeaseHeld(cycle, answer[1])
        return int(answer[1])

    def renew(self, cycle: str, lease: int, ttl_s: float) -> None:
        self._script(scripts.RENEW, cycle, lease, _milliseconds(ttl_s))

    def release(self, cycle: str, lease: int) -> None:
        self._script(scripts.RELEASE, cycle, lease, uuid.uuid4().hex)

    def holder(self, cycle: str) -> str | None:
        return self._script(scripts.HOLDER, cycle, None)[1] or None

    def put_attachment(self, cycle: str, name: str, text: str, lease: int | None) -> None:
        keys = ("cycle", "attachments")
        self._script(scripts.PUT_FIELD, cycle, lease, name, text, 0, keys=keys)

    def attachment(self, cycle: str, name: str) -> str | None:
        key = self._connection.key("attachments", cycle)
        text = self._connection.call(lambda client: client.hget(key, name))
        if text is None:
            self.get(cycle)
        return None if text is None else text.decode()

    def _read(self, cycles: Sequence[str]) -> list[CycleRecord | Unreadable | None]:
        """What each is; None for one that is not here."""

        def read(client: Any) -> Any:
            pipe = client.pipeline(transaction=False)
            for cycle in cycles:
                key = self._connection.key("cycle", cycle)
                pipe.hmget(key, ["record", "number", "job", "attempts"])
            return pipe.execute()

        rows = self._connection.call(read)
        return [_cycle_of(cycle, *row) for cycle, row in zip(cycles, rows, strict=True)]


class RedisTable:
    """LookupStore: a hash a cycle, fenced by the cycle's lease."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, record: LookupRecord, lease: int) -> bool:
        put = partial(_fenced, self._connection, scripts.PUT_FIELD, record.cycle, lease)
        _, added = put(record.index, codec.encode(record), 1, keys=("cycle", "table"))
        return bool(added == "1")

    def records(self, cycle: str) -> tuple[LookupRecord, ...]:
        key = self._connection.key("table", cycle)
        texts = self._connection.call(lambda client: client.hvals(key))
        records = (codec.stored(LookupRecord, text, "table of cycle", cycle) for text in texts)
        return tuple(sorted(records, key=lambda record: record.index))

    def count(self, cycle: str) -> int:
        key = self._connection.key("table", cycle)
        return int(self._connection.call(lambda client: client.hlen(key)))


class RedisEvents:
    """EventLog: a stream a cycle. A lost connection may leave an event twice."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def append(self, cycle: str, kind: str, data: Mapping[str, Any]) -> str:
        key = self._connection.key("events", cycle)
        fields: Any = {"kind": kind, "data": codec.encode_loose(data)}
        event: bytes = self._connection.call(
            lambda client: client.xadd(key, fields, maxlen=EVENTS_KEPT, approximate=True)
        )
        return event.decode()

    def read(self, cycle: str, after: str, limit: int) -> tuple[Event, ...]:
        key = self._connection.key("events", cycle)
        major, minor = event_order(after)
        start = f"({major}-{minor}"
        rows = self._connection.call(lambda client: client.xrange(key, min=start, count=limit))
        return tuple(_event_of(row) for row in rows)

    def last(self, cycle: str, kind: str, phase: str | None = None) -> Event | None:
        key = self._connection.key("events", cycle)
        rows = self._connection.call(lambda client: client.xrevrange(key, count=EVENTS_SEARCHED))
        events = (_event_of(row) for row in rows if row[1][b"kind"].decode() == kind)
        return next((event for event in events if event.tells(kind, phase)), None)


class RedisDatasets:
    """DatasetStore."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._listing = _Listing()

    def add(self, record: DatasetRecord, images: DatasetImages) -> DatasetRecord:
        name = record.spec.name
        key = self._connection.key
        (text,) = self._connection.script(
            scripts.ADD_DATASET,
            [key("dataset", name), key("images", name), key("datasets")],
            name,
            codec.encode(record),
            codec.encode(images),
        )
        stored = codec.stored(DatasetRecord, text, "dataset", name)
        if stored.spec != record.spec:
            raise AlreadyExists("dataset", name)
        return stored

    def get(self, name: str) -> DatasetRecord:
        return codec.stored(DatasetRecord, self._text("dataset", name), "dataset", name)

    def images(self, name: str) -> DatasetImages:
        return codec.stored(DatasetImages, self._text("images", name), "images of dataset", name)

    def page(self, after: str | None, limit: int) -> tuple[DatasetRecord, ...]:
        key, first = self._connection.key("datasets"), "-" if after is None else f"({after}"

        def names(start: int, count: int) -> Any:
            return self._connection.call(
                lambda client: client.zrangebylex(key, first, "+", start, count)
            )

        return self._listing.page(0, limit, names, self._read)

    def labelled_since(self, name: str) -> int:
        key = self._connection.key("labelled_images", name)
        return int(self._connection.call(lambda client: client.hlen(key)))

    def add_labels(self, name: str, cycle: str, labels: Annotations) -> None:
        parts = ("dataset", "labels", "label_order", "labelled_images")
        keys = [self._connection.key(part, name) for part in parts]
        text = annotations_to_json(labels)
        if self._connection.script(scripts.ADD_LABELS, keys, cycle, text)[0] == "missing":
            raise NotFound("dataset", name)

    def labels(self, name: str) -> tuple[tuple[str, Annotations], ...]:
        labels, order = (self._connection.key(part, name) for part in ("labels", "label_order"))
        texts = self._connection.call(lambda client: client.hgetall(labels))
        if not texts:
            self.get(name)
            return ()
        cycles = self._connection.call(lambda client: client.zrange(order, 0, -1))
        return tuple(
            (cycle.decode(), annotations_from_json(texts[cycle]))
            for cycle in cycles
            if cycle in texts  # added between the two reads
        )

    def _text(self, part: str, name: str) -> bytes:
        key = self._connection.key(part, name)
        text = self._connection.call(lambda client: client.get(key))
        if text is None:
            raise NotFound("dataset", name)
        return cast("bytes", text)

    def _read(self, names: Sequence[str]) -> list[DatasetRecord | Unreadable | None]:
        """What each is; None for one that is gone."""
        keys = [self._connection.key("dataset", name) for name in names]
        texts = self._connection.call(lambda client: client.mget(keys))
        return [
            _parsed(DatasetRecord, text, "dataset", name)
            for name, text in zip(names, texts, strict=True)
        ]


class _Listing:
    """Pages of what can be read; what cannot is logged the first time."""

    def __init__(self) -> None:
        self._logged: set[str] = set()

    def page(
        self,
        start: int,
        limit: int,
        names: Callable[[int, int], list[bytes]],
        read: Callable[[Sequence[str]], Sequence[T | Unreadable | None]],
    ) -> tuple[T, ...]:
        """names: a number of them at most, from a position on; read: what each is."""
        page: list[T] = []
        while (wanted := limit - len(page)) > 0:
            batch = [name.decode() for name in names(start, wanted)]
            for item in read(batch) if batch else ():
                if isinstance(item, Unreadable):
                    if item.name not in self._logged:
                        self._logged.add(item.name)
                        logger.warning("%s; listings leave it out", item)
                elif item is not None:
                    page.append(item)
            if len(batch) < wanted:
                break
            start += wanted
        return tuple(page)


def _parsed(kind: type[T], text: bytes | None, what: str, name: str) -> T | Unreadable | None:
    try:
        return None if text is None else codec.stored(kind, text, what, name)
    except Unreadable as error:
        return error


def _cycle_of(
    cycle: str, text: bytes | None, number: bytes | None, job: bytes | None, attempts: bytes | None
) -> CycleRecord | Unreadable | None:
    record = _parsed(CycleRecord, text, "cycle", cycle)
    if not isinstance(record, CycleRecord):
        return record
    return replace(
        record,
        number=int(number or 0),
        job=job.decode() if job else None,
        attempts=int(attempts or 0),
    )


def _event_of(row: tuple[bytes, Mapping[bytes, bytes]]) -> Event:
    event, fields = row
    return Event(event.decode(), fields[b"kind"].decode(), codec.decode_loose(fields[b"data"]))


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _fenced(
    connection: Connection,
    lua: str,
    cycle: str,
    lease: int | None,
    *args: str | int | float,
    keys: Sequence[str] = ("cycle",),
) -> list[Any]:
    """What a script on keys of a cycle returns; NotFound without the cycle, StaleLease."""
    names = [connection.key(key, cycle) for key in keys]
    answer = connection.script(scripts.FENCE + lua, names, "" if lease is None else lease, *args)
    if answer[0] == "missing":
        raise NotFound("cycle", cycle)
    if answer[0] == "stale":
        raise StaleLease(cycle, lease or 0)
    return answer

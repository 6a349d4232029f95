"""The record stores in a Redis or Valkey server: JSON and bytes, one Lua script a step."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

from redis import Redis

from mgral_service import codec
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import (
    AlreadyExists,
    IdempotencyMismatch,
    IllegalTransition,
    InvalidInput,
    LeaseHeld,
    NotFound,
    StaleLease,
    Unreadable,
)
from mgral_service.domain.records import (
    CycleRecord,
    DatasetRecord,
    Event,
    LookupRecord,
    Status,
)
from mgral_service.store import Stores, scripts
from mgral_service.store.forms import annotations_from_json, annotations_to_json, event_order
from mgral_service.store.link import Link

DRIVER_PATIENCE_S = 20.0  # a server may take this long to restart
KEYS_KEPT_S = 7 * 24 * 3600  # how long an Idempotency-Key is remembered
EVENTS_KEPT = 10_000  # a cycle, about
EVENTS_SEARCHED = 100  # by EventLog.last

logger = logging.getLogger(__name__)


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
        self._unreadable: set[str] = set()  # cycles that the log tells of

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

    def get(self, cycle: str) -> CycleRecord:
        found = self._many([cycle])[0]
        if found is None:
            raise NotFound("cycle", cycle)
        if isinstance(found, Unreadable):
            raise found
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
        page: list[CycleRecord] = []
        while len(page) < limit:
            names = link.call(partial(_newest, index, start, limit - len(page)))
            for found in self._many([name.decode() for name in names]):
                if isinstance(found, Unreadable):
                    self._warn(found)
                elif found is not None:
                    page.append(found)
            start += len(names)
            if not names:
                break
        return tuple(page)

    def _warn(self, found: Unreadable) -> None:
        """Once: the gateway looks at all cycles every few seconds."""
        if found.name not in self._unreadable:
            self._unreadable.add(found.name)
            logger.warning("%s; listings leave it out", found)

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
        fields = ["record", "number", "job", "attempts"]

        def read(client: Any) -> list[list[bytes | None]]:
            pipe = client.pipeline(transaction=False)
            for cycle in cycles:
                pipe.hmget(self._link.key("cycle", cycle), fields)
            found: list[list[bytes | None]] = pipe.execute()
            return found

        rows = self._link.call(read) if cycles else []
        return [_record_of(cycle, row) for cycle, row in zip(cycles, rows, strict=True)]


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
        records = (codec.decode(LookupRecord, text) for text in texts)
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

    def last(self, cycle: str, kind: str) -> Event | None:
        key = self._link.key("events", cycle)
        rows = self._link.call(lambda client: client.xrevrange(key, count=EVENTS_SEARCHED))
        return next((_event_of(row) for row in rows if row[1][b"kind"].decode() == kind), None)


class RedisDatasets:
    """DatasetStore."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def add(self, record: DatasetRecord) -> DatasetRecord:
        name = record.spec.name
        keys = [self._link.key("dataset", name), self._link.key("datasets")]
        answer = self._link.script(scripts.ADD_DATASET, keys, name, codec.encode(record))
        kept = codec.decode(DatasetRecord, answer[0])
        if kept.spec != record.spec:
            raise AlreadyExists("dataset", name)
        return kept

    def get(self, name: str) -> DatasetRecord:
        key = self._link.key("dataset", name)
        text = self._link.call(lambda client: client.get(key))
        if text is None:
            raise NotFound("dataset", name)
        return codec.decode(DatasetRecord, text)

    def page(self, after: str | None, limit: int) -> tuple[DatasetRecord, ...]:
        key, start = self._link.key("datasets"), "-" if after is None else f"({after}"
        names = self._link.call(lambda client: client.zrangebylex(key, start, "+", 0, limit))
        return tuple(self.get(name.decode()) for name in names)

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


def _newest(index: str, start: int, count: int, client: Redis) -> list[bytes]:
    """Cycles from rank `start` on."""
    return cast("list[bytes]", client.zrevrange(index, start, start + count - 1))


def _record_of(cycle: str, row: Sequence[bytes | None]) -> CycleRecord | Unreadable | None:
    text, number, job, attempts = row
    if text is None or number is None or attempts is None:
        return None
    try:
        record = codec.decode(CycleRecord, text)
    except InvalidInput as error:
        return Unreadable("cycle", cycle, str(error))
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

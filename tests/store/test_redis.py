"""What only a real server can show."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from mgral_service import codec
from mgral_service.domain.errors import InvalidInput, Unavailable, Unreadable
from mgral_service.store.connection import Connection
from mgral_service.store.embedded import EmbeddedValkey
from mgral_service.store.redis import RedisEvents, redis_stores
from tests.fakes import boxes_in, cycle_record, dataset_images, dataset_record, lookup_record


@pytest.fixture
def client(valkey: EmbeddedValkey) -> Iterator[Redis]:
    with Redis.from_url(valkey.url) as client:
        yield client


def test_a_server_that_is_away_is_waited_for_as_long_as_asked(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        url = server.url
    began = time.monotonic()
    with pytest.raises(Unavailable, match="store"):
        redis_stores(url, patience_s=0.5).cycles.get("cyc_1")
    assert 0.5 <= time.monotonic() - began < 3.0


def test_a_full_server_takes_nothing_and_recovers(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server, Redis.from_url(server.url) as client:
        stores = redis_stores(server.url, patience_s=20.0)
        stores.cycles.create(cycle_record(), None, "")
        lease = stores.cycles.acquire("cyc_1", "me", 600.0)
        client.config_set("maxmemory", "1mb")
        began = time.monotonic()
        with pytest.raises(Unavailable, match="memory"):
            stores.table.put(lookup_record(0), lease)
        with pytest.raises(Unavailable, match="memory"):
            stores.cycles.create(cycle_record("cyc_2"), "key", "print")
        with pytest.raises(Unavailable, match="memory"):
            stores.events.append("cyc_1", "progress", {})
        assert time.monotonic() - began < 5.0
        assert stores.table.count("cyc_1") == 0
        client.config_set("maxmemory", "0")
        assert stores.table.put(lookup_record(0), lease)
        assert stores.cycles.create(cycle_record("cyc_2"), "key", "print").number == 2


def test_ten_thousand_cycles_are_paged_quickly(
    valkey: EmbeddedValkey, prefix: str, client: Redis
) -> None:
    stores = redis_stores(valkey.url, prefix)
    stores.cycles.create(cycle_record("cyc_0"), None, "")
    made: Any = client.hgetall(f"{prefix}cycle:cyc_0")
    pipe: Any = client.pipeline(transaction=False)
    for number in range(1, 10_000):
        record = codec.encode(cycle_record(f"cyc_{number}"))
        pipe.hset(f"{prefix}cycle:cyc_{number}", mapping={**made, b"record": record})
        pipe.zadd(f"{prefix}cycles", {f"cyc_{number}": number + 1})
    pipe.execute()
    began = time.monotonic()
    page = stores.cycles.page("cyc_5000", 50)
    assert time.monotonic() - began < 1.0
    assert [record.id for record in page][:2] == ["cyc_4999", "cyc_4998"]
    assert stores.cycles.page("cyc_10", 50)[-1].id == "cyc_0"


def test_a_cycle_that_cannot_be_read_hides_no_other(
    valkey: EmbeddedValkey, prefix: str, client: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    stores = redis_stores(valkey.url, prefix)
    for number in range(1, 6):
        stores.cycles.create(cycle_record(f"cyc_{number}"), None, "")
    for number in (3, 4):  # as another version would have it
        record = codec.plain(cycle_record(f"cyc_{number}"))
        record["spec"]["table"]["folds"] = 0
        client.hset(f"{prefix}cycle:cyc_{number}", "record", codec.encode_loose(record))
    assert [record.id for record in stores.cycles.page(None, 9)] == ["cyc_5", "cyc_2", "cyc_1"]
    assert [record.id for record in stores.cycles.page(None, 2)] == ["cyc_5", "cyc_2"]
    assert [record.id for record in stores.cycles.page("cyc_3", 1)] == ["cyc_2"]
    assert [text.split("'")[1] for text in caplog.messages] == ["cyc_4", "cyc_3"]
    with pytest.raises(Unreadable, match=r"'cyc_4' .* between 1 and 64"):
        stores.cycles.get("cyc_4")


def test_a_dataset_that_cannot_be_read_hides_no_other(
    valkey: EmbeddedValkey, prefix: str, client: Redis
) -> None:
    datasets = redis_stores(valkey.url, prefix).datasets
    for name in ("a", "b", "c"):
        datasets.add(dataset_record(name), dataset_images())
    client.set(f"{prefix}dataset:b", '{"spec": {}}')
    assert [record.spec.name for record in datasets.page(None, 2)] == ["a", "c"]
    assert [record.spec.name for record in datasets.page("a", 1)] == ["c"]
    with pytest.raises(Unreadable, match="dataset 'b'"):
        datasets.get("b")


def test_counts_and_listings_read_no_images_and_no_boxes(
    valkey: EmbeddedValkey, prefix: str, client: Redis
) -> None:
    datasets = redis_stores(valkey.url, prefix).datasets
    datasets.add(dataset_record(), dataset_images())
    datasets.add_labels("digits", "cyc_1", boxes_in("img_0", "img_1"))
    client.set(f"{prefix}images:digits", "damaged")
    client.hset(f"{prefix}labels:digits", "cyc_1", "damaged")
    assert datasets.page(None, 9) == (dataset_record(),)
    assert datasets.labelled_since("digits") == 2
    with pytest.raises(Unreadable, match="images of dataset 'digits'"):
        datasets.images("digits")


def test_events_are_trimmed_to_about_ten_thousand(
    valkey: EmbeddedValkey, prefix: str, client: Redis
) -> None:
    connection = Connection(valkey.url, prefix, 1.0)
    key, fields = connection.key("events", "cyc_1"), {"kind": "k", "data": "{}"}
    pipe: Any = client.pipeline(transaction=False)
    for _ in range(12_000):
        pipe.xadd(key, fields)
    pipe.execute()
    RedisEvents(connection).append("cyc_1", "k", {})
    assert 10_000 <= client.xlen(key) < 10_200


def test_nothing_but_text_is_stored(valkey: EmbeddedValkey, prefix: str, client: Redis) -> None:
    stores = redis_stores(valkey.url, prefix)
    stores.cycles.create(cycle_record(), "key", "print")
    lease = stores.cycles.acquire("cyc_1", "me", 600.0)
    stores.table.put(lookup_record(0), lease)
    raw: Any = client.hgetall(f"{prefix}table:cyc_1")
    assert raw[b"0"].startswith(b'{"cycle":"cyc_1","index":0')
    stored: Any = client.hgetall(f"{prefix}cycle:cyc_1")
    assert stored[b"record"].startswith(b'{"id":"cyc_1"')
    life: Any = client.ttl(f"{prefix}idempotency:key")
    assert 6 * 86400 < life <= 7 * 86400


def test_a_repeated_call_gives_the_same_answer(
    valkey: EmbeddedValkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after each script has run: it is sent again."""
    stores = redis_stores(valkey.url, prefix)
    whole, lost = Connection.call, [True]

    def call(self: Connection, command: Any) -> Any:
        answer = whole(self, command)
        return whole(self, command) if lost[0] else answer

    monkeypatch.setattr(Connection, "call", call)
    assert stores.cycles.create(cycle_record(), "key", "print").number == 1
    lease = stores.cycles.acquire("cyc_1", "me", 600.0)
    assert lease == 1
    stores.cycles.put(cycle_record(), lease)
    stores.cycles.renew("cyc_1", lease, 600.0)
    stores.cycles.release("cyc_1", lease)
    stores.datasets.add(dataset_record(), dataset_images())
    stores.datasets.add_labels("digits", "cyc_1", boxes_in("img_0"))
    assert stores.datasets.labelled_since("digits") == 1
    lost[0] = False
    assert stores.cycles.acquire("cyc_1", "you", 600.0) == 2


@pytest.mark.parametrize("url", ["", "nonsense", "http://localhost", "redis://host:port"])
def test_a_wrong_url_is_named(url: str) -> None:
    with pytest.raises(InvalidInput, match="redis url"):
        redis_stores(url)

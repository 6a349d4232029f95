"""Server-sent events, over a real server: the test client reads whole answers only."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2 as httpx
import pytest

from mgral_service.domain.errors import Unavailable
from mgral_service.domain.records import Event, Status
from mgral_service.gateway import events
from mgral_service.gateway.app import GatewayPorts
from tests.fakes import cycle_record
from tests.gateway.conftest import reach, served
from tests.memory_stores import MemoryEvents

Sent = tuple[str, str, dict[str, Any]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL_S", 0.01)
    monkeypatch.setattr(events, "LAST_EVENT_S", 0.1)


@pytest.fixture
def client(ports: GatewayPorts) -> Iterator[httpx.Client]:
    ports.stores.cycles.create(cycle_record(), None, "")
    with served(ports) as client:
        yield client


def progress(ports: GatewayPorts, *numbers: int) -> list[str]:
    append = ports.stores.events.append
    return [append("cyc_1", "progress", {"done": number}) for number in numbers]


def listen(client: httpx.Client, last: str | None = None, most: int = 10**9) -> list[Sent]:
    """(id, kind, data) until the stream ends or so many came."""
    sent: list[Sent] = []
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", "/cycles/cyc_1/events", headers=headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if not line and "data" in fields:
                sent.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
                if len(sent) == most:
                    break
            if not line:
                fields = {}
            elif not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
    return sent


def test_events_come_as_they_happen_and_the_last_closes(
    ports: GatewayPorts, client: httpx.Client
) -> None:
    ids = progress(ports, 1, 2)

    def drive() -> None:
        for number in (3, 4):
            time.sleep(0.05)
            progress(ports, number)
        reach(ports, "cyc_1", Status.SUCCEEDED)

    driver = threading.Thread(target=drive)
    driver.start()
    sent = listen(client)
    driver.join()
    assert [event for event, _, _ in sent][:2] == ids
    assert [data.get("done") for _, _, data in sent] == [1, 2, 3, 4, None]
    assert sent[-1][1:] == ("cycle.state_changed", {"status": "SUCCEEDED"})


def test_a_stream_resumes_where_it_broke_off(ports: GatewayPorts, client: httpx.Client) -> None:
    progress(ports, *range(250))
    reach(ports, "cyc_1", Status.FAILED)
    sent: list[Sent] = []
    for most in (1, 7, 100, 130):
        sent += listen(client, sent[-1][0] if sent else None, most)
    sent += listen(client, sent[-1][0])
    assert [data.get("done") for _, _, data in sent] == [*range(250), None]
    answer = client.get("/cycles/cyc_1/events", headers={"Last-Event-ID": sent[-1][0]})
    assert (answer.status_code, answer.content) == (204, b"")


def test_an_end_without_its_event_closes_as_well(ports: GatewayPorts, client: httpx.Client) -> None:
    record = ports.stores.cycles.get("cyc_1")
    ports.stores.cycles.put(replace(record, status=Status.CANCELLED), None)
    progress(ports, 1)
    assert [data for _, _, data in listen(client)] == [{"done": 1}]


def test_dropped_events_are_made_up_for_by_a_snapshot(
    ports: GatewayPorts, client: httpx.Client
) -> None:
    first = progress(ports, 1, 2, 3)[0]
    log = ports.stores.events
    assert isinstance(log, MemoryEvents)
    del log._events["cyc_1"][:2]
    reset, rest = listen(client, first, most=2)
    assert (reset[1], reset[2]["status"], reset[2]["id"]) == ("reset", "QUEUED", "cyc_1")
    assert rest[2] == {"done": 3}


def test_a_made_up_place_is_refused(client: httpx.Client) -> None:
    answer = client.get("/cycles/cyc_1/events", headers={"Last-Event-ID": "yesterday"})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_INPUT")


def test_streams_are_counted_and_given_back(
    ports: GatewayPorts, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STREAMS", 1)
    progress(ports, 1)
    with client.stream("GET", "/cycles/cyc_1/events") as answer:
        lines = answer.iter_lines()  # kept: an iterator let go of closes the connection
        next(lines)
        assert client.get("/cycles/cyc_1/events").status_code == 503
        assert client.get("/livez").status_code == 200
    deadline = time.monotonic() + 5
    status = 503
    while status == 503:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        with client.stream("GET", "/cycles/cyc_1/events") as answer:
            status = answer.status_code
    assert status == 200


def test_a_store_that_fails_ends_the_stream(
    ports: GatewayPorts, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ports.stores.events
    assert isinstance(log, MemoryEvents)
    progress(ports, 1)
    whole = log.read
    calls = 0

    def read(cycle: str, after: str, limit: int) -> tuple[Event, ...]:
        nonlocal calls
        calls += 1
        if calls > 4:
            raise Unavailable("store", "gone")
        return whole(cycle, after, limit)

    monkeypatch.setattr(log, "read", read)
    assert [data for _, _, data in listen(client)] == [{"done": 1}]

"""The client against a real gateway over memory."""

import pickle
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mgral_service import client as module
from mgral_service.client import RESTING, Client
from mgral_service.domain.errors import InvalidInput, NotFound, Unavailable
from mgral_service.domain.records import Status
from mgral_service.gateway.app import GatewayPorts
from mgral_service.service import free_port
from mgral_service.store.memory import memory_stores
from tests.gateway.conftest import ports_over, reach, served


@pytest.fixture
def ports() -> GatewayPorts:
    return ports_over(memory_stores())


@pytest.fixture
def client(ports: GatewayPorts) -> Iterator[Client]:
    with served(ports) as http, Client(str(http.base_url)) as opened:
        yield opened


def start(client: Client) -> str:
    return str(client.start({"dataset": "digits", "budget": 2})["id"])


def test_what_is_not_found_is_told_in_the_service_s_words(client: Client) -> None:
    with pytest.raises(NotFound, match=r"^no dataset named 'digitz'$") as raised:
        client.start({"dataset": "digitz", "budget": 2})
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    with pytest.raises(InvalidInput, match="budget"):
        client.start({"dataset": "digits", "budget": 2000})


def test_a_cycle_is_followed_to_where_it_rests(client: Client, ports: GatewayPorts) -> None:
    cycle = start(client)
    reach(ports, cycle, Status.SELECTED)
    told = [data["status"] for _, data in client.events(cycle, frozenset(RESTING))]
    assert told == ["QUEUED", "SELECTED"]


def test_a_rest_that_is_over_does_not_end_it(client: Client, ports: GatewayPorts) -> None:
    """The retraining after the annotations is followed too."""
    cycle = start(client)
    for status in (Status.SELECTED, Status.EVALUATING):
        reach(ports, cycle, status)
    told = []
    for _, data in client.events(cycle, frozenset(RESTING)):
        told.append(data["status"])
        if told[-1] == "EVALUATING":
            reach(ports, cycle, Status.SUCCEEDED)
    assert told == ["QUEUED", "SELECTED", "EVALUATING", "SUCCEEDED"]


def test_an_end_ends_it_whatever_was_waited_for(client: Client, ports: GatewayPorts) -> None:
    cycle = start(client)
    reach(ports, cycle, Status.SELECTED)
    record = replace(ports.stores.cycles.get(cycle), status=Status.SUCCEEDED)
    ports.stores.cycles.put(record, None)  # and the driver that did so told nobody
    assert client._rests(cycle, frozenset({"SELECTED"}))
    told = [data["status"] for _, data in client.events(cycle, frozenset({"SELECTED"}))]
    assert told == ["QUEUED", "SELECTED"]


def test_a_service_that_restarts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        asked = []

        def cycle(name: str) -> dict[str, str]:
            asked.append(name)
            if len(asked) < 3:
                raise Unavailable("the service", "restarting")
            return {"status": "FAILED"}

        monkeypatch.setattr(client, "cycle", cycle)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        assert list(client.events("cyc_1", frozenset(RESTING))) == []
        assert len(asked) == 3
        monkeypatch.setattr(module, "RESTART_S", -1.0)
        asked.clear()
        with pytest.raises(Unavailable):
            list(client.events("cyc_1", frozenset(RESTING)))

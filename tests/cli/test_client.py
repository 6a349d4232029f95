"""The client against a real gateway over memory."""

import pickle
from collections.abc import Iterator
from dataclasses import replace

import pytest

from mgral_service.app.service import free_port
from mgral_service.cli import client as module
from mgral_service.cli.client import RESTING, Client
from mgral_service.domain.errors import InvalidInput, NotFound, Unavailable
from mgral_service.domain.records import Status
from mgral_service.gateway.app import GatewayPorts
from tests.gateway.conftest import ports_over, reach, served
from tests.memory_stores import memory_stores


@pytest.fixture
def ports() -> GatewayPorts:
    return ports_over(memory_stores())


@pytest.fixture
def client(ports: GatewayPorts) -> Iterator[Client]:
    with served(ports) as http, Client(str(http.base_url)) as opened:
        yield opened


def start(client: Client) -> str:
    return str(client.start({"dataset": "digits", "budget": 2})["id"])


def test_errors_have_the_service_s_text(client: Client) -> None:
    with pytest.raises(NotFound, match=r"^no dataset named 'digitz'$") as raised:
        client.start({"dataset": "digitz", "budget": 2})
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    with pytest.raises(InvalidInput, match="budget"):
        client.start({"dataset": "digits", "budget": 2000})


def test_a_cycle_is_followed_to_its_selection(client: Client, ports: GatewayPorts) -> None:
    cycle = start(client)
    reach(ports, cycle, Status.SELECTED)
    statuses = [data["status"] for _, data in client.events(cycle, RESTING)]
    assert statuses == ["QUEUED", "SELECTED"]


def test_a_status_that_is_over_does_not_end_it(client: Client, ports: GatewayPorts) -> None:
    """The retraining after the annotations is followed too."""
    cycle = start(client)
    for status in (Status.SELECTED, Status.EVALUATING):
        reach(ports, cycle, status)
    statuses = []
    for _, data in client.events(cycle, RESTING):
        statuses.append(data["status"])
        if statuses[-1] == "EVALUATING":
            reach(ports, cycle, Status.SUCCEEDED)
    assert statuses == ["QUEUED", "SELECTED", "EVALUATING", "SUCCEEDED"]


def test_a_final_status_ends_it_whatever_was_waited_for(
    client: Client, ports: GatewayPorts
) -> None:
    cycle = start(client)
    reach(ports, cycle, Status.SELECTED)
    record = replace(ports.stores.cycles.get(cycle), status=Status.SUCCEEDED)
    ports.stores.cycles.put(record, None)  # and the driver that did so told nobody
    statuses = [data["status"] for _, data in client.events(cycle, frozenset({"SELECTED"}))]
    assert statuses == ["QUEUED", "SELECTED"]


def test_a_service_that_restarts_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(f"http://127.0.0.1:{free_port()}") as client:
        asked = []

        def cycle(cycle: str) -> dict[str, str]:
            asked.append(cycle)
            if len(asked) < 3:
                raise Unavailable("the service", "restarting")
            return {"status": "FAILED"}

        monkeypatch.setattr(client, "cycle", cycle)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        assert list(client.events("cyc_1", RESTING)) == []
        assert len(asked) == 3
        monkeypatch.setattr(module, "RESTART_S", -1.0)
        asked.clear()
        with pytest.raises(Unavailable):
            list(client.events("cyc_1", RESTING))

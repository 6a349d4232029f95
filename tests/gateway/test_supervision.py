from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from mgral_service.domain.errors import IllegalTransition, Unavailable
from mgral_service.domain.records import CycleRecord, Status
from mgral_service.gateway import supervision
from mgral_service.gateway.app import GatewayPorts
from mgral_service.gateway.supervision import (
    launch_driver,
    note,
    relaunch_orphans,
    supervise,
)
from tests.fakes import cycle_record
from tests.gateway.conftest import FakeLauncher, ports_over, reach
from tests.memory_stores import MemoryCycles, memory_stores


@pytest.fixture
def cycle(http: TestClient) -> str:
    return str(http.post("/cycles", json={"dataset": "digits", "budget": 2}).json()["id"])


def test_a_cycle_whose_driver_died_gets_a_new_one(
    ports: GatewayPorts, launcher: FakeLauncher, cycle: str
) -> None:
    reach(ports, cycle, Status.FITTING)
    assert relaunch_orphans(ports, grace_s=0) == ()  # its job is alive
    launcher.dead.add(f"job-{cycle}-1")
    assert relaunch_orphans(ports, grace_s=60) == ()  # it has just moved
    assert relaunch_orphans(ports, grace_s=0) == (cycle,)
    assert relaunch_orphans(ports, grace_s=0) == ()
    record = ports.stores.cycles.get(cycle)
    assert (record.attempts, record.job) == (2, f"job-{cycle}-2")
    assert record.status is Status.FITTING


def test_a_live_lease_keeps_its_cycle(
    ports: GatewayPorts, launcher: FakeLauncher, cycle: str
) -> None:
    launcher.dead.add(f"job-{cycle}-1")
    lease = ports.stores.cycles.acquire(cycle, "a driver by hand", 60)
    assert relaunch_orphans(ports, grace_s=0) == ()
    ports.stores.cycles.release(cycle, lease)
    assert relaunch_orphans(ports, grace_s=0) == (cycle,)


@pytest.mark.parametrize("status", [Status.SELECTED, Status.SUCCEEDED, Status.CANCELLED])
def test_cycles_that_rest_are_left_alone(
    ports: GatewayPorts, launcher: FakeLauncher, cycle: str, status: Status
) -> None:
    launcher.dead.add(f"job-{cycle}-1")
    reach(ports, cycle, status)
    assert relaunch_orphans(ports, grace_s=0) == ()


def test_a_cycle_whose_request_died_before_the_launch_is_launched(ports: GatewayPorts) -> None:
    ports.stores.cycles.create(cycle_record(), None, "")
    assert relaunch_orphans(ports, grace_s=0) == ("cyc_1",)
    assert ports.stores.cycles.get("cyc_1").attempts == 1


def test_a_cycle_that_kills_its_drivers_fails(
    ports: GatewayPorts, launcher: FakeLauncher, cycle: str
) -> None:
    for attempt in range(1, 4):
        launcher.dead.add(f"job-{cycle}-{attempt}")
        relaunch_orphans(ports, max_attempts=3, grace_s=0)
    record = ports.stores.cycles.get(cycle)
    assert (record.status, record.attempts) == (Status.FAILED, 3)
    assert record.problem is not None
    assert record.problem.code == "DriverLost"
    last = ports.stores.events.last(cycle, "cycle.state_changed")
    assert last is not None
    assert last.data["status"] == "FAILED"


def test_a_cluster_that_is_down_is_unavailable(
    ports: GatewayPorts, launcher: FakeLauncher, cycle: str
) -> None:
    launcher.dead.add(f"job-{cycle}-1")
    launcher.down = True
    with pytest.raises(Unavailable):
        relaunch_orphans(ports, grace_s=0)
    assert ports.stores.cycles.get(cycle).attempts == 1


def test_supervision_outlives_a_look_that_fails(
    ports: GatewayPorts, cycle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop, looks = threading.Event(), 0

    def look(ports: GatewayPorts) -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            stop.set()
        raise OSError("503 of the dashboard")

    monkeypatch.setattr(supervision, "relaunch_orphans", look)
    supervise(ports, stop, every_s=0.001)
    assert looks == 3


def test_a_note_beside_a_driver_that_moves_on_is_kept() -> None:
    stores = memory_stores()
    moves = iter([Status.FITTING, Status.PREDICTING])

    class Racing(MemoryCycles):
        def put(self, record: CycleRecord, lease: int | None) -> None:
            for status in moves:  # the driver is faster, twice
                old = super().get(record.id)
                super().put(replace(old, status=status), None)
                raise IllegalTransition(record.id, status, record.status)
            super().put(record, lease)

    cycles = Racing(lambda: 0.0)
    ports = ports_over(replace(stores, cycles=cycles))
    record = cycles.create(cycle_record(), None, "")
    noted = note(ports, record, job="job-1", attempts=1)
    assert (noted.job, noted.attempts, noted.status) == ("job-1", 1, Status.PREDICTING)


def test_a_launch_keeps_how_a_cancelled_cycle_ended(ports: GatewayPorts, cycle: str) -> None:
    record = ports.stores.cycles.get(cycle)
    reach(ports, cycle, Status.CANCELLED)
    assert launch_driver(ports, record).status is Status.CANCELLED

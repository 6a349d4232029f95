"""Drivers: a cycle gets one, and a new one when it dies."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

from mgral_service.domain.errors import IllegalTransition, Unavailable
from mgral_service.domain.records import CycleRecord, Problem, Status
from mgral_service.gateway.ports import GatewayPorts

MOST_ATTEMPTS = 5
GRACE_S = 30.0  # a cycle just made or answered is being launched by the request that did it
NEWEST = 1000  # cycles that one pass looks at
SUPERVISE_S = 10.0  # between two looks
_RACES = 20  # times a driver may move its cycle forward while we write beside it


def launch_driver(ports: GatewayPorts, record: CycleRecord) -> CycleRecord:
    """Start the cycle's next attempt and note its job.

    Unavailable if it cannot be started now: the cycle stays as it is and carries the problem until
    the same attempt is launched. The same attempt twice starts one driver.
    """
    attempt = record.attempts + 1
    try:
        job = ports.launcher.launch(record.id, attempt)
    except Unavailable as error:
        note(ports, record, problem=Problem("Unavailable", str(error)))
        raise
    return note(ports, record, job=job, attempts=attempt, problem=None)


def try_launch(ports: GatewayPorts, record: CycleRecord) -> CycleRecord:
    """`launch_driver`; where it cannot be started now, supervision starts it later."""
    try:
        return launch_driver(ports, record)
    except Unavailable:
        return ports.stores.cycles.get(record.id)


def note(ports: GatewayPorts, record: CycleRecord, **changes: object) -> CycleRecord:
    """Write changes beside a driver that moves the same cycle forward."""
    cycles = ports.stores.cycles
    for _ in range(_RACES):
        record = cycles.get(record.id)
        if record.status.terminal:
            changes.pop("problem", None)  # how it ended stays
        changed = replace(record, **changes)  # type: ignore[arg-type]
        try:
            cycles.put(changed, None)
        except IllegalTransition:
            continue
        return cycles.get(record.id)
    return record


def move(ports: GatewayPorts, record: CycleRecord, status: Status, lease: int | None) -> None:
    """The cycle's next status, and the event that says so."""
    now = ports.clock()
    ports.stores.cycles.put(replace(record, status=status, updated=now), lease)
    publish_status(ports, record.id, status)


def publish_status(ports: GatewayPorts, cycle: str, status: Status) -> None:
    """Append the event that a cycle has a status."""
    data = {"status": status.value, "time": ports.clock()}
    ports.stores.events.append(cycle, "cycle.state_changed", data)


def supervise(ports: GatewayPorts, stop: threading.Event, every_s: float = SUPERVISE_S) -> None:
    """Look for orphans until `stop` is set. A look that fails is logged: the next may succeed."""
    while not stop.wait(every_s):
        try:
            relaunch_orphans(ports)
        except Exception:
            logging.getLogger(__name__).exception("looking for orphaned cycles failed")


def relaunch_orphans(
    ports: GatewayPorts, max_attempts: int = MOST_ATTEMPTS, grace_s: float = GRACE_S
) -> tuple[str, ...]:
    """One look at the newest cycles: those whose driver is gone get a new one.

    Gone: the status wants a driver, nobody holds the lease, the job is not alive. After
    `max_attempts` the cycle fails. Returns the ids that were relaunched; Unavailable if the
    cluster or the store cannot be asked.
    """
    relaunched: list[str] = []
    for record in ports.stores.cycles.page(None, NEWEST):
        if not _orphaned(ports, record, grace_s):
            continue
        if record.attempts >= max_attempts:
            _give_up(ports, record)
        else:
            launch_driver(ports, record)
            relaunched.append(record.id)
    return tuple(relaunched)


def _orphaned(ports: GatewayPorts, record: CycleRecord, grace_s: float) -> bool:
    if record.experiment:  # stopped on purpose, it may be: its file is run again by hand
        return False
    if not record.status.driven or ports.clock() - record.updated < grace_s:
        return False
    if ports.stores.cycles.holder(record.id) is not None:
        return False
    return record.job is None or not ports.launcher.alive(record.job)


def _give_up(ports: GatewayPorts, record: CycleRecord) -> None:
    detail = (
        f"{record.attempts} drivers ended before the cycle did: see the logs of job {record.job}"
    )
    failed = Problem("DriverLost", detail)
    try:
        move(ports, replace(record, problem=failed), Status.FAILED, None)
    except IllegalTransition:
        return  # it ended meanwhile

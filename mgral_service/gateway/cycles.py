"""/cycles: start, list, read, cancel, resume."""

from __future__ import annotations

import hashlib
from typing import Annotated

from fastapi import APIRouter, Depends, Header, HTTPException, Response

from mgral_service import codec
from mgral_service.domain.errors import Conflict, CycleNotReady, InvalidInput, LeaseHeld, NotFound
from mgral_service.domain.records import CycleRecord, Progress, Status
from mgral_service.domain.report import CycleReport
from mgral_service.domain.specs import CycleSpec
from mgral_service.gateway.openapi import body_of, problems_of
from mgral_service.gateway.ports import GatewayPorts
from mgral_service.gateway.problems import RETRY_S
from mgral_service.gateway.requests import (
    SPEC_BYTES,
    JsonBody,
    PageSize,
    PageToken,
    after_token,
    idempotency_key,
    page_limit,
    page_token,
)
from mgral_service.gateway.schemas import CycleOut, CyclesOut
from mgral_service.gateway.supervision import launch_driver, move, publish_status, try_launch


def cycle_routes(ports: GatewayPorts) -> APIRouter:
    router = APIRouter(tags=["cycles"])
    cycles = ports.stores.cycles

    @router.post(
        "/cycles",
        status_code=202,
        openapi_extra=body_of("CycleSpec"),
        responses=problems_of(400, 404, 409, 413, 415, 503),
    )
    def start_cycle(
        response: Response,
        body: Annotated[bytes, Depends(JsonBody(SPEC_BYTES))],
        idempotency: Annotated[str | None, Header(alias="Idempotency-Key")] = None,
    ) -> CycleOut:
        """Start a cycle. The same Idempotency-Key and body again give the same cycle."""
        key = idempotency_key(idempotency)
        spec = codec.cycle_spec(codec.decode_loose(body))
        record, replayed = _start(ports, spec, key)
        response.headers["Location"] = f"/cycles/{record.id}"
        response.headers["Retry-After"] = str(RETRY_S)
        if replayed:
            response.headers["Idempotency-Replayed"] = "true"
        return shown(ports, record)

    @router.get("/cycles", responses=problems_of(400, 503))
    def list_cycles(page_size: PageSize = 0, token: PageToken = "") -> CyclesOut:
        """All cycles, newest first."""
        size, after = page_limit(page_size), after_token("cycles", token)
        try:
            records = cycles.page(after, size + 1)
        except NotFound:
            raise HTTPException(400, "page_token: no such cycle") from None
        more, now = len(records) > size, ports.clock()
        return CyclesOut(
            cycles=[CycleOut.of(record, None, now) for record in records[:size]],
            next_page_token=page_token("cycles", records[size - 1].id) if more else "",
        )

    @router.get("/cycles/{id}", responses=problems_of(404, 503))
    def read_cycle(id: str) -> CycleOut:
        """One cycle with its progress."""
        return shown(ports, cycles.get(id))

    _add_commands(router, ports)
    return router


def _add_commands(router: APIRouter, ports: GatewayPorts) -> None:
    cycles = ports.stores.cycles

    @router.post("/cycles/{id}/cancel", responses=problems_of(404, 409, 503))
    def cancel_cycle(id: str) -> CycleOut:
        """Stop a cycle for good; may be repeated. 409 for one that succeeded or failed."""
        record = cycles.get(id)
        if record.status is not Status.CANCELLED:
            move(ports, record, Status.CANCELLED, None)
            record = cycles.get(id)
        if record.job is not None:
            ports.launcher.cancel(record.job)
        return shown(ports, record)

    @router.post("/cycles/{id}/resume", status_code=202, responses=problems_of(404, 409, 503))
    def resume_cycle(id: str) -> CycleOut:
        """Give a cycle whose driver died a new one. 409 while a driver works or starts, and where
        the cycle needs none.
        """
        record = cycles.get(id)
        if not record.status.driven:
            raise Conflict(f"cycle {id!r} is {record.status}: there is nothing to drive")
        if record.experiment:
            raise Conflict(f"cycle {id!r} is of an experiment: run its file again to go on")
        holder = cycles.holder(id)
        if holder is not None:
            raise LeaseHeld(id, holder)
        if record.job is not None and ports.launcher.alive(record.job):
            raise Conflict(f"cycle {id!r} has a driver on its way, job {record.job!r}: wait for it")
        return shown(ports, launch_driver(ports, record))

    @router.get(
        "/cycles/{id}/report",
        responses={**problems_of(404, 409, 503), 200: {"model": CycleReport}},
    )
    def read_report(id: str) -> Response:
        """The cycle in figures, after each phase. 409 before the first has ended."""
        record, text = cycles.get(id), cycles.attachment(id, "report")
        if text is None and record.status.terminal:
            raise NotFound("report of cycle", id)
        if text is None:
            raise CycleNotReady(id, record.status)
        return Response(text, media_type="application/json")


def _start(ports: GatewayPorts, spec: CycleSpec, key: str | None) -> tuple[CycleRecord, bool]:
    """The cycle, and whether an earlier request with this key made it."""
    cycles, now = ports.stores.cycles, ports.clock()
    fingerprint = hashlib.sha256(codec.encode(spec).encode()).hexdigest()
    if key is None or cycles.claimed(key, fingerprint) is None:
        _check(ports, spec)  # what was started once is not refused later
    mine = CycleRecord(ports.new_id(), spec, Status.QUEUED, 0, now, now)
    record = cycles.create(mine, key, fingerprint)
    replayed = record.id != mine.id
    if not replayed:
        publish_status(ports, record.id, Status.QUEUED)
    not_launched = record.status is Status.QUEUED and record.problem is not None
    if not replayed or not_launched:
        record = try_launch(ports, record)
    return record, replayed


def shown(ports: GatewayPorts, record: CycleRecord) -> CycleOut:
    return CycleOut.of(record, _progress(ports, record), ports.clock())


def _check(ports: GatewayPorts, spec: CycleSpec) -> None:
    """NotFound for the dataset, InvalidInput for a spec that cannot run on it."""
    ports.check(spec)
    dataset = ports.stores.datasets.get(spec.dataset)
    left = dataset.unlabelled - ports.stores.datasets.labelled_since(spec.dataset)
    if spec.budget > left:
        raise InvalidInput("budget", f"{left} unlabelled images are left: ask for fewer")


def _progress(ports: GatewayPorts, record: CycleRecord) -> Progress | None:
    """Of the cycle's phase; None if there is no recent event of it."""
    if record.status is Status.TRAINING_PROXIES:
        total = record.spec.table.records
        return Progress(record.status, min(ports.stores.table.count(record.id), total), total)
    event = ports.stores.events.last(record.id, "progress", record.status.value)
    if event is None:
        return None
    names = ("phase", "done", "total", "figures")
    return codec.build(Progress, {name: event.data[name] for name in names if name in event.data})

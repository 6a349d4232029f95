"""/cycles/{id}/events: what happens to a cycle as server-sent events, resumable."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, Header, HTTPException
from fastapi.sse import EventSourceResponse, ServerSentEvent

from mgral_service import codec
from mgral_service.domain.errors import MgralError, Unavailable
from mgral_service.domain.records import Event, Status
from mgral_service.gateway.cycles import shown
from mgral_service.gateway.openapi import problems_of
from mgral_service.gateway.ports import GatewayPorts

POLL_S = 0.3
PAGE = 100  # events read at once
STREAM_S = 3600.0  # a stream ends after this long: clients reconnect where it broke off
STREAMS = 200  # open at the same time
LAST_EVENT_S = 2.0  # after the end of a cycle its last event may still come
RETRY_MS = 3000


@dataclass(slots=True)
class _Position:
    """Of a stream: the id of the last event sent. reset: events after it were dropped."""

    cycle: str
    after: str
    reset: bool


def event_routes(ports: GatewayPorts) -> APIRouter:
    router = APIRouter(tags=["cycles"])
    open_streams = 0

    async def position(
        id: str, last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None
    ) -> AsyncIterator[_Position]:
        """Checked before the stream begins, while an error can still have its status. Left when the
        response has ended, whoever ended it.
        """
        nonlocal open_streams
        if open_streams >= STREAMS:
            raise Unavailable("the event stream", f"{STREAMS} are open")
        open_streams += 1
        try:
            yield await to_thread.run_sync(_position, ports, id, last_event_id or "0")
        finally:
            open_streams -= 1

    @router.get(
        "/cycles/{id}/events",
        response_class=EventSourceResponse,
        responses={
            **problems_of(404, 503),
            204: {"description": "The cycle ended, all events were sent"},
        },
    )
    async def stream_events(
        position: Annotated[_Position, Depends(position)],
    ) -> AsyncIterator[ServerSentEvent]:
        """Events as they happen; ends after the cycle's last. Resumes after `Last-Event-ID`.

        `cycle.state_changed` and `progress` carry JSON; `reset` carries the whole cycle when
        events between were dropped.
        """
        async for event in _events(ports, position):
            yield event

    return router


def _position(ports: GatewayPorts, cycle: str, after: str) -> _Position:
    record = ports.stores.cycles.get(cycle)
    left = ports.stores.events.read(cycle, after, 1)
    if record.status.terminal and not left and after != "0":
        raise HTTPException(204)  # so that a browser does not reconnect
    first = ports.stores.events.read(cycle, "0", 1)
    trimmed = after != "0" and bool(first) and _order(first[0].id) > _order(after)
    return _Position(cycle, after, trimmed)


async def _events(ports: GatewayPorts, position: _Position) -> AsyncIterator[ServerSentEvent]:
    """What the store holds after a position, then what comes; ends quietly with the store."""
    yield ServerSentEvent(comment=f"events of {position.cycle}", retry=RETRY_MS)
    end = time.monotonic() + STREAM_S
    ended_at: float | None = None
    try:
        if position.reset:
            yield await to_thread.run_sync(_snapshot, ports, position.cycle)
        while time.monotonic() < end:
            events = await to_thread.run_sync(
                ports.stores.events.read, position.cycle, position.after, PAGE
            )
            for event in events:
                position.after = event.id
                yield ServerSentEvent(data=dict(event.data), event=event.kind, id=event.id)
            if any(_is_last(event) for event in events):
                return
            if len(events) == PAGE:
                continue
            record = await to_thread.run_sync(ports.stores.cycles.get, position.cycle)
            if record.status.terminal:
                ended_at = ended_at or time.monotonic()
                if time.monotonic() - ended_at > LAST_EVENT_S:
                    return
            await anyio.sleep(POLL_S)
    except MgralError:
        return


def _snapshot(ports: GatewayPorts, cycle: str) -> ServerSentEvent:
    state = shown(ports, ports.stores.cycles.get(cycle))
    return ServerSentEvent(data=codec.plain(state), event="reset")


def _is_last(event: Event) -> bool:
    return event.kind == "cycle.state_changed" and Status(event.data["status"]).terminal


def _order(event: str) -> tuple[int, ...]:
    return tuple(int(part) for part in event.split("-"))

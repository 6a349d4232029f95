"""/cycles/{id}/events: the story of a cycle as server-sent events, resumable."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from mgral_service.domain.errors import MgralError, Unavailable
from mgral_service.domain.records import Event, Status
from mgral_service.gateway.cycles import shown
from mgral_service.gateway.documents import problems_of
from mgral_service.gateway.ports import GatewayPorts

POLL_S = 0.3
PAGE = 100  # events read at once
STREAM_S = 3600.0  # a stream ends after this long: clients reconnect where it broke off
STREAMS = 200  # open at the same time
LAST_WORDS_S = 2.0  # a driver that ended a cycle still says so
RETRY_MS = 3000


class NothingLeft(Exception):
    """All is told: 204, so that a browser does not reconnect."""


@dataclass(slots=True)
class _Place:
    """Where a stream stands."""

    cycle: str
    after: str
    reset: bool


def install(app: FastAPI) -> None:
    def nothing_left(request: Request, error: Exception) -> Response:
        return Response(status_code=204)

    app.add_exception_handler(NothingLeft, nothing_left)


def event_routes(ports: GatewayPorts) -> APIRouter:
    router = APIRouter(tags=["cycles"])
    open_streams = 0

    async def place(
        id: str, last_event_id: Annotated[str | None, Header(alias="Last-Event-ID")] = None
    ) -> AsyncIterator[_Place]:
        """Checked before the stream begins, while an error can still be told by its status.

        Left when the response has ended, whoever ended it.
        """
        nonlocal open_streams
        if open_streams >= STREAMS:
            raise Unavailable("the event stream", f"{STREAMS} are open")
        open_streams += 1
        try:
            yield await to_thread.run_sync(_place, ports, id, last_event_id or "0")
        finally:
            open_streams -= 1

    @router.get(
        "/cycles/{id}/events",
        response_class=EventSourceResponse,
        responses={**problems_of(404, 503), 204: {"description": "The cycle ended, all is told"}},
    )
    async def stream_events(
        where: Annotated[_Place, Depends(place)],
    ) -> AsyncIterator[ServerSentEvent]:
        """Events as they happen; ends after the cycle's last. Resumes after `Last-Event-ID`.

        `cycle.state_changed` and `progress` carry JSON; `reset` carries the whole cycle when
        events between were dropped.
        """
        async for event in _story(ports, where):
            yield event

    return router


def _place(ports: GatewayPorts, cycle: str, after: str) -> _Place:
    record = ports.stores.cycles.get(cycle)
    left = ports.stores.events.read(cycle, after, 1)
    if record.status.terminal and not left and after != "0":
        raise NothingLeft
    first = ports.stores.events.read(cycle, "0", 1)
    trimmed = after != "0" and bool(first) and _order(first[0].id) > _order(after)
    return _Place(cycle, after, trimmed)


async def _story(ports: GatewayPorts, where: _Place) -> AsyncIterator[ServerSentEvent]:
    """What the store holds after a place, then what comes; ends quietly when the store is gone."""
    yield ServerSentEvent(comment=f"events of {where.cycle}", retry=RETRY_MS)
    end = time.monotonic() + STREAM_S
    ended_at: float | None = None
    try:
        if where.reset:
            yield await to_thread.run_sync(_snapshot, ports, where.cycle)
        while time.monotonic() < end:
            events = await to_thread.run_sync(
                ports.stores.events.read, where.cycle, where.after, PAGE
            )
            for event in events:
                where.after = event.id
                yield ServerSentEvent(data=dict(event.data), event=event.kind, id=event.id)
            if any(_is_last(event) for event in events):
                return
            if len(events) == PAGE:
                continue
            if await to_thread.run_sync(_over, ports, where.cycle):
                ended_at = ended_at or time.monotonic()
                if time.monotonic() - ended_at > LAST_WORDS_S:
                    return
            await anyio.sleep(POLL_S)
    except MgralError:
        return


def _snapshot(ports: GatewayPorts, cycle: str) -> ServerSentEvent:
    state = shown(ports, ports.stores.cycles.get(cycle))
    return ServerSentEvent(data=state.model_dump(mode="json"), event="reset")


def _over(ports: GatewayPorts, cycle: str) -> bool:
    return ports.stores.cycles.get(cycle).status.terminal


def _is_last(event: Event) -> bool:
    status = event.data.get("status")
    return event.kind == "cycle.state_changed" and status in {
        one.value for one in Status if one.terminal
    }


def _order(event: str) -> tuple[int, ...]:
    return tuple(int(part) for part in event.split("-"))

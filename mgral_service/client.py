"""A thin client of the gateway: what the CLI and the demo speak through."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

import httpx2 as httpx

from mgral_service.domain.errors import Conflict, InvalidInput, MgralError, NotFound, Unavailable

ENDED = {"SUCCEEDED", "FAILED", "CANCELLED"}
RESTING = {"SELECTED", *ENDED}
RESTART_S = 60.0  # a followed service may be away for this long


class Refused(MgralError):
    """401 or 403: the token is missing or wrong."""


class Missing(NotFound):
    """404, in the service's words."""

    def __str__(self) -> str:
        return self.name


class Client:
    """Raises the errors of `domain.errors` for problems, with the service's own words."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 300.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """JSON of a 2xx answer, or text if it is none."""
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Unavailable(f"the service at {self.url}", type(error).__name__) from error
        if answer.status_code >= 400:
            raise _error_of(answer)
        if "json" in answer.headers.get("content-type", ""):
            return answer.json()
        return answer.text

    def ready(self) -> bool:
        try:
            return bool(self._http.get("/readyz", timeout=5).status_code == 200)
        except httpx.HTTPError:
            return False

    def add_dataset(self, spec: Mapping[str, Any]) -> Any:
        return self.call("POST", "/datasets", json=spec)

    def start(self, spec: Mapping[str, Any], key: str | None = None) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        return self.call("POST", "/cycles", json=spec, headers=headers)

    def cycle(self, name: str) -> Any:
        return self.call("GET", f"/cycles/{name}")

    def selection(self, name: str, budget: int | None = None) -> Any:
        """The whole selection: all pages joined."""
        first: Any = None
        token = ""
        while True:
            query: dict[str, Any] = {"page_size": 1000}
            query |= {"budget": budget} if budget else {}
            query |= {"page_token": token} if token else {}
            page = self.call("GET", f"/selections/{name}", params=query)
            if first is None:
                first = page
            else:
                first["images"] += page["images"]
            token = page.get("next_page_token") or ""
            if not token:
                return first

    def events(self, name: str, rest_at: frozenset[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Its story from the first event until it rests: until its status is in `rest_at` now, not
        only in the story, or it has ended. Reconnects where the stream broke off; Unavailable if
        the service stays away for `RESTART_S`.
        """
        last = ""
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            with (
                contextlib.suppress(httpx.HTTPError),  # the next turn continues after `last`
                self._http.stream("GET", f"/cycles/{name}/events", headers=headers) as answer,
            ):
                if answer.status_code == 204:
                    return
                if answer.status_code >= 400 and answer.status_code != 503:
                    answer.read()
                    raise _error_of(answer)
                for event, kind, data in _server_sent(answer.iter_lines()):
                    last = event or last
                    yield kind, data
                    rested = kind == "cycle.state_changed" and data.get("status") in rest_at
                    if rested and self._rests(name, rest_at):
                        return
            if self._rests(name, rest_at):
                return
            time.sleep(1)

    def _rests(self, name: str, rest_at: frozenset[str]) -> bool:
        deadline = time.monotonic() + RESTART_S
        while True:
            try:
                return self.cycle(name)["status"] in rest_at | ENDED
            except Unavailable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(1)


def _server_sent(lines: Iterator[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(id, event, data) of each event of a text/event-stream."""
    last, kind, data = "", "message", ""
    for line in lines:
        if line.startswith("id:"):
            last = line[3:].strip()
        elif line.startswith("event:"):
            kind = line[6:].strip()
        elif line.startswith("data:"):
            data += line[5:].strip()
        elif not line and data:
            yield last, kind, json.loads(data)
            kind, data = "message", ""


def _error_of(answer: httpx.Response) -> MgralError:
    """The error that a problem (RFC 9457) stands for."""
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    detail = str(problem.get("detail") or answer.reason_phrase)
    for fault in problem.get("errors") or []:
        detail += f"\n  {fault.get('pointer', '')} {fault.get('detail', '')}"
    code = answer.status_code
    if code in {401, 403}:
        return Refused(detail)
    if code == 404:
        return Missing("resource", detail)
    if code == 409:
        return Conflict(detail)
    if code in {429, 503, 504}:
        return Unavailable("the service", detail)
    return InvalidInput("request", detail) if code < 500 else MgralError(detail)

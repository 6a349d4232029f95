"""A client of the gateway, for the CLI and the demo."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any, Self

import httpx2 as httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from mgral_service.domain.errors import Conflict, InvalidInput, MgralError, NotFound, Unavailable

ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
RESTING = ENDED | {"SELECTED"}
RESTART_S = 60.0  # a followed service may be away for this long
RETRY_S = 1.0


class Refused(MgralError):
    """401 or 403: the token is missing or wrong."""


class Missing(NotFound):
    """404; the text is the service's."""

    def __str__(self) -> str:
        return self.name


class Client:
    """Raises the errors of `domain.errors` for problems, with the service's text."""

    def __init__(self, url: str, token: str | None = None, timeout_s: float = 300.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def call(self, method: str, path: str, **options: Any) -> Any:
        """The body of a 2xx response: JSON parsed, anything else as text."""
        try:
            response = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise Unavailable(f"the service at {self.url}", type(error).__name__) from error
        if response.status_code >= 400:
            raise _error_of(response)
        if "json" in response.headers.get("content-type", ""):
            return response.json()
        return response.text

    def add_dataset(self, spec: Mapping[str, Any]) -> Any:
        return self.call("POST", "/datasets", json=spec)

    def start(self, spec: Mapping[str, Any], key: str | None = None) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        return self.call("POST", "/cycles", json=spec, headers=headers)

    def cycle(self, cycle: str) -> Any:
        return self.call("GET", f"/cycles/{cycle}")

    def report(self, cycle: str) -> Any:
        return self.call("GET", f"/cycles/{cycle}/report")

    def selection(self, cycle: str, budget: int | None = None) -> Any:
        """The whole selection: all pages joined."""
        query: dict[str, Any] = {"page_size": 1000} | ({"budget": budget} if budget else {})
        page = self.call("GET", f"/selections/{cycle}", params=query)
        images = page["images"]
        while token := page.get("next_page_token"):
            page = self.call("GET", f"/selections/{cycle}", params=query | {"page_token": token})
            images += page["images"]
        return page | {"images": images}

    def events(self, cycle: str, until: frozenset[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """(kind, data) of a cycle's events from the first on, until the status that the service
        answers is in `until` or final.

        Reconnects where the stream breaks off. Unavailable if the service stays away for
        `RESTART_S`.
        """
        path, last = f"/cycles/{cycle}/events", ""
        while True:
            headers = {"Last-Event-ID": last} if last else {}
            with (
                contextlib.suppress(httpx.HTTPError),  # the next turn continues after `last`
                self._http.sse(path, headers=headers) as source,
            ):
                status = source.response.status_code
                if status == 204:
                    return
                if status >= 400 and status != 503:
                    source.response.read()
                    raise _error_of(source.response)
                for event in source:
                    last = event.id or last
                    if not event.data:  # the server's retry time alone
                        continue
                    data: Any = event.json()
                    yield event.event, data
                    if event.event != "cycle.state_changed" or data.get("status") not in until:
                        continue
                    if self._rests(cycle, until):
                        return
            if self._rests(cycle, until):
                return
            time.sleep(RETRY_S)

    def _rests(self, cycle: str, until: frozenset[str]) -> bool:
        """Whether the cycle is in `until` or has ended; waits for a service that is away."""
        patiently = Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_delay(RESTART_S),
            wait=wait_fixed(RETRY_S),
            reraise=True,
        )
        return patiently(self.cycle, cycle)["status"] in until | ENDED


def _error_of(response: httpx.Response) -> MgralError:
    """The error that a problem (RFC 9457) stands for."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    detail = str(problem.get("detail") or response.reason_phrase)
    for fault in problem.get("errors") or []:
        detail += f"\n  {fault.get('pointer', '')} {fault.get('detail', '')}"
    code = response.status_code
    if code in {401, 403}:
        return Refused(detail)
    if code == 404:
        return Missing("resource", detail)
    if code == 409:
        return Conflict(detail)
    if code in {429, 503, 504}:
        return Unavailable("the service", detail)
    return InvalidInput("request", detail) if code < 500 else MgralError(detail)

"""Every error as application/problem+json (RFC 9457), its status in one table."""

from __future__ import annotations

import http
import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from mgral_service import codec
from mgral_service.domain.errors import (
    AlreadyExists,
    Conflict,
    CycleNotReady,
    DatasetRefused,
    IdempotencyMismatch,
    IllegalTransition,
    InvalidInput,
    LeaseHeld,
    MgralError,
    NotFound,
    Unavailable,
    Unreadable,
)
from mgral_service.domain.records import Reconciliation, Status

MEDIA = "application/problem+json"
RETRY_S = 5


class BadRequest(MgralError):
    """A header or a page token makes no sense."""


class Unauthorized(MgralError):
    """No bearer token, or a wrong one."""

    def __str__(self) -> str:
        return "send the service's token: Authorization: Bearer TOKEN"


class Forbidden(MgralError):
    """A page of another site sent the request."""

    def __str__(self) -> str:
        return "requests from pages of other sites are refused"


class TokenNeeded(MgralError):
    """Without a token only this machine is answered."""

    def __str__(self) -> str:
        return (
            "without a token the service answers its own machine alone, by 127.0.0.1 or localhost: "
            "start it with MGRAL_TOKEN to reach it from elsewhere"
        )


class BodyTooLarge(MgralError):
    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit

    def __str__(self) -> str:
        return f"the body may have {self.limit} bytes at most"


class WrongMediaType(MgralError):
    def __str__(self) -> str:
        return "send JSON as it is: Content-Type: application/json, no Content-Encoding"


class IncompleteAnswers(MgralError):
    """Posted annotations do not answer the selection; nothing was kept."""

    def __init__(self, reconciliation: Reconciliation) -> None:
        super().__init__(reconciliation)
        self.reconciliation = reconciliation

    def __str__(self) -> str:
        found = self.reconciliation
        return (
            f"{len(found.matched)} images matched, {len(found.unknown)} unknown, "
            f"{len(found.missing)} missing, {len(found.refused)} refused items: nothing was kept; "
            "correct them, or send ?partial=true to keep what matched"
        )


STATUS: Mapping[type[MgralError], tuple[int, str]] = {
    InvalidInput: (422, "INVALID_INPUT"),
    DatasetRefused: (422, "DATASET_REFUSED"),
    IdempotencyMismatch: (422, "IDEMPOTENCY_MISMATCH"),
    IncompleteAnswers: (422, "INCOMPLETE_ANSWERS"),
    NotFound: (404, "NOT_FOUND"),
    Unreadable: (500, "UNREADABLE"),
    Conflict: (409, "CONFLICT"),
    AlreadyExists: (409, "ALREADY_EXISTS"),
    CycleNotReady: (409, "CYCLE_NOT_READY"),
    IllegalTransition: (409, "ILLEGAL_TRANSITION"),
    LeaseHeld: (409, "LEASE_HELD"),
    Unavailable: (503, "UNAVAILABLE"),
    BadRequest: (400, "BAD_REQUEST"),
    Unauthorized: (401, "UNAUTHORIZED"),
    Forbidden: (403, "FORBIDDEN"),
    TokenNeeded: (403, "TOKEN_NEEDED"),
    BodyTooLarge: (413, "BODY_TOO_LARGE"),
    WrongMediaType: (415, "WRONG_MEDIA_TYPE"),
}


def install(app: FastAPI) -> None:
    """Let every error of `app` leave as a problem."""
    app.add_exception_handler(MgralError, _domain)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Exception, _anything)


def problem(
    status: int,
    code: str,
    detail: str,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": f"urn:mgral:request:{uuid.uuid4()}",
        "code": code,
        **more,
    }
    if errors:
        body["errors"] = list(errors)
    shown = codec.encode_loose(_printable(body))
    return Response(shown, status, dict(headers or {}), MEDIA)


def _domain(request: Request, error: Exception) -> Response:
    found = next((STATUS[kind] for kind in type(error).__mro__ if kind in STATUS), None)
    if found is None:
        return _anything(request, error)
    status, code = found
    errors: list[Mapping[str, str]] = []
    headers: dict[str, str] = {}
    more: dict[str, Any] = {}
    if isinstance(error, InvalidInput):
        errors = [{"pointer": _pointer(error.where.split(".")), "detail": error.what}]
    elif isinstance(error, IncompleteAnswers):
        more["reconciliation"] = codec.plain(error.reconciliation)
    elif isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    waiting = isinstance(error, CycleNotReady) and not Status(error.status).terminal
    if waiting or isinstance(error, Unavailable | LeaseHeld):
        headers["Retry-After"] = str(RETRY_S)
    return problem(status, code, str(error), errors, headers, **more)


def _framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405:
        allowed = _methods(request)
        headers["Allow"] = ", ".join(allowed) or headers.get("Allow", "GET")
    phrase = http.HTTPStatus(error.status_code).phrase
    code = re.sub(r"[^A-Z]+", "_", phrase.upper())
    return problem(error.status_code, code, str(error.detail), (), headers)


def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"pointer": _pointer([str(part) for part in fault["loc"]]), "detail": str(fault["msg"])}
        for fault in error.errors()
    ]
    detail = "; ".join(f"{one['pointer']}: {one['detail']}" for one in errors)
    return problem(422, "INVALID_INPUT", detail, errors)


def _anything(request: Request, error: Exception) -> Response:
    logging.getLogger(__name__).error("%s failed", request.scope.get("path"), exc_info=error)
    return problem(500, "INTERNAL", "the service failed: its log says more")


def _methods(request: Request) -> list[str]:
    """The methods that the path of this request knows."""
    path = request.scope["path"]
    found: set[str] = set()
    for template, operations in request.app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path):
            found |= {method.upper() for method in operations}
    return sorted(found)


def _pointer(parts: Sequence[str]) -> str:
    """A JSON pointer (RFC 6901) as a fragment."""
    return "#/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)


def _printable(value: Any) -> Any:
    """The same, its texts without what UTF-8 cannot hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_printable(key): _printable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(item) for item in value]
    return value

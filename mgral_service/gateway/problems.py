"""Every error as application/problem+json (RFC 9457), its status in one table."""

from __future__ import annotations

import http
import json
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
    Conflict,
    CycleNotReady,
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


class TokenNeeded(MgralError):
    """The service has no token, and the request is of another machine."""


class IncompleteAnswers(MgralError):
    """Posted annotations do not answer the selection; nothing was kept."""

    def __init__(self, reconciliation: Reconciliation) -> None:
        super().__init__(reconciliation)
        self.reconciliation = reconciliation

    def __str__(self) -> str:
        answers = self.reconciliation
        return (
            f"{len(answers.matched)} images matched, {len(answers.unknown)} unknown, "
            f"{len(answers.missing)} missing, {len(answers.refused)} refused items: nothing was "
            "kept; correct them, or send ?partial=true to keep what matched"
        )


STATUS: Mapping[type[MgralError], int] = {
    InvalidInput: 422,
    IncompleteAnswers: 422,
    NotFound: 404,
    Unreadable: 500,
    Conflict: 409,
    Unavailable: 503,
    TokenNeeded: 403,
}
"""Of an error and those derived from it."""

CODES = {413: "BODY_TOO_LARGE", 415: "WRONG_MEDIA_TYPE"}
"""Of an HTTPException; other statuses have their phrase."""


def install(app: FastAPI) -> None:
    """Let every error of `app` leave as a problem."""
    app.add_exception_handler(MgralError, _domain)
    app.add_exception_handler(HTTPException, _framework)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(Exception, _anything)


def problem(
    status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    body = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": f"urn:mgral:request:{uuid.uuid4()}",
        "code": code,
        **more,
    }
    content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    return Response(content, status, headers, MEDIA)


def code_of(kind: type[Exception]) -> str:
    """The name of its class: NOT_FOUND of NotFound."""
    return re.sub("(?<=[a-z])(?=[A-Z])", "_", kind.__name__).upper()


def _domain(request: Request, error: Exception) -> Response:
    kind = next((kind for kind in type(error).__mro__ if kind in STATUS), None)
    if kind is None:
        return _anything(request, error)
    headers: dict[str, str] = {}
    more: dict[str, Any] = {}
    if isinstance(error, InvalidInput):
        more["errors"] = [{"pointer": _pointer(error.where.split(".")), "detail": error.what}]
    elif isinstance(error, IncompleteAnswers):
        more["reconciliation"] = codec.plain(error.reconciliation)
    waiting = isinstance(error, CycleNotReady) and not Status(error.status).terminal
    if waiting or isinstance(error, Unavailable | LeaseHeld):
        headers["Retry-After"] = str(RETRY_S)
    return problem(STATUS[kind], code_of(type(error)), str(error), headers, **more)


def _framework(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, headers = error.status_code, dict(error.headers or {})
    if status == 204:
        return Response(status_code=status)
    if status == 405 and (allowed := _methods(request)):
        headers["Allow"] = ", ".join(allowed)
    code = CODES.get(status) or re.sub("[^A-Z]+", "_", http.HTTPStatus(status).phrase.upper())
    return problem(status, code, str(error.detail), headers)


def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [
        {"pointer": _pointer([str(part) for part in fault["loc"]]), "detail": str(fault["msg"])}
        for fault in error.errors()
    ]
    detail = "; ".join(f"{fault['pointer']}: {fault['detail']}" for fault in errors)
    return problem(422, "INVALID_INPUT", detail, errors=errors)


def _anything(request: Request, error: Exception) -> Response:
    logging.getLogger(__name__).error("%s failed", request.scope.get("path"), exc_info=error)
    return problem(500, "INTERNAL", "the service failed: its log says more")


def _methods(request: Request) -> list[str]:
    """The methods of the routes at this request's path."""
    path = request.scope["path"]
    methods = {
        method.upper()
        for template, operations in request.app.openapi()["paths"].items()
        if re.fullmatch(re.sub(r"\{[^}]+\}", "[^/]+", template), path)
        for method in operations
    }
    return sorted(methods)


def _pointer(parts: Sequence[str]) -> str:
    """A JSON pointer (RFC 6901) as a fragment."""
    return "#/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)

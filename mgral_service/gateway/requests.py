"""What requests carry: bodies within limits, tokens of pages, keys, credentials."""

from __future__ import annotations

import base64
import json
import re
import secrets
from typing import Annotated

from fastapi import HTTPException, Query, Request
from fastapi.security.utils import get_authorization_scheme_param

from mgral_service.gateway.problems import TokenNeeded

SPEC_BYTES = 1 << 20
ANSWERS_BYTES = 64 << 20
PAGE = 50
LARGEST_PAGE = 1000
KEY_CHARACTERS = 255
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

PageSize = Annotated[int, Query(ge=0, description="0: the default, 50; at most 1000 are given")]
PageToken = Annotated[
    str, Query(alias="page_token", description="next_page_token of the page before")
]


class JsonBody:
    """A dependency: the raw body, JSON by its Content-Type and within `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    async def __call__(self, request: Request) -> bytes:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = request.headers.get("content-encoding", "identity").lower()
        if not re.fullmatch(r"application/(json|.*\+json)", media) or encoding != "identity":
            raise HTTPException(
                415, "send JSON as it is: Content-Type: application/json, no Content-Encoding"
            )
        too_large = HTTPException(413, f"the body may have {self.limit} bytes at most")
        stated = request.headers.get("content-length", "")
        if stated.isdecimal() and int(stated[:20]) > self.limit:
            raise too_large
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.limit:
                raise too_large
        return bytes(body)


class Guard:
    """A dependency: a request carries the bearer token, or without a token comes from this machine;
    it never comes from another site's page.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def __call__(self, request: Request) -> None:
        if self._token is not None:
            scheme, given = get_authorization_scheme_param(request.headers.get("authorization"))
            same = secrets.compare_digest(given.strip().encode(), self._token.encode())
            if scheme.lower() != "bearer" or not same:
                raise HTTPException(
                    401,
                    "send the service's token: Authorization: Bearer TOKEN",
                    {"WWW-Authenticate": "Bearer"},
                )
        elif not _local(request):
            raise TokenNeeded(
                "without a token the service answers its own machine alone, by 127.0.0.1 or "
                "localhost: start it with MGRAL_TOKEN to reach it from elsewhere"
            )
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            raise HTTPException(403, "requests from pages of other sites are refused")


def _local(request: Request) -> bool:
    """Whether it comes from this machine and by its name: a page of another site may reach a
    loopback address, but by a name of its own (DNS rebinding).
    """
    named = re.sub(r":\d*$", "", request.headers.get("host", "")).strip("[]")
    return request.client is not None and {named, request.client.host} <= LOOPBACK


def idempotency_key(header: str | None) -> str | None:
    """The key, bare or quoted: 1 to 255 printable ASCII characters; 400 otherwise."""
    if header is None:
        return None
    key = header.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not (1 <= len(key) <= KEY_CHARACTERS and key.isascii() and key.isprintable()):
        raise HTTPException(400, "Idempotency-Key: use 1 to 255 printable ASCII characters")
    return key


def page_limit(size: int) -> int:
    """0 is the default; more than the largest page is the largest page."""
    return min(size or PAGE, LARGEST_PAGE)


def page_token(listing: str, after: str) -> str:
    """An opaque token: what comes after `after` in `listing`."""
    return base64.urlsafe_b64encode(json.dumps([listing, after]).encode()).decode()


def after_token(listing: str, token: str) -> str | None:
    """What `page_token` held, None for the first page; 400 for another listing's token."""
    if not token:
        return None
    try:
        held, after = json.loads(base64.b64decode(token, altchars="-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        raise HTTPException(
            400, "page_token: send the next_page_token of the page before"
        ) from None
    if held != listing or not isinstance(after, str):
        raise HTTPException(400, "page_token: belongs to another list or another budget")
    return after

"""The connection to a Redis or Valkey server: outlives its restart, can be pickled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, cast

from redis import Redis
from redis.backoff import EqualJitterBackoff, NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)
from redis.retry import Retry

from mgral_service.domain.errors import InvalidInput, Unavailable

CALL_S = 5.0  # longest wait for one answer
_AWAY = (ConnectionError, TimeoutError)
_DENIED = (AuthenticationError, AuthorizationError)
_RETRY = Retry(EqualJitterBackoff(cap=1.0, base=0.05), -1, _AWAY)


class Connection:
    """A client of one server and the prefix of our keys there.

    patience_s: how long a call is repeated while the server does not answer, then Unavailable.
    Every call may reach the server twice, so each must give the same answer the second time.
    """

    def __init__(self, url: str, prefix: str, patience_s: float) -> None:
        self.url, self.prefix, self.patience_s = url, prefix, patience_s
        try:
            self._client = client_of(url)
        except ValueError as error:
            raise InvalidInput("redis url", str(error)) from None

    def __reduce__(self) -> tuple[type[Connection], tuple[str, str, float]]:
        return Connection, (self.url, self.prefix, self.patience_s)

    def key(self, *parts: str) -> str:
        return self.prefix + ":".join(parts)

    def script(self, lua: str, keys: Sequence[str], *args: str | int | float) -> list[Any]:
        """What a script returns: a list whose bytes are text."""
        answer = self.call(lambda client: client.register_script(lua)(keys=keys, args=args))
        return [item.decode() if isinstance(item, bytes) else item for item in cast("Any", answer)]

    def call(self, command: Callable[[Redis], Any]) -> Any:
        """What `command` returns for the client; Unavailable when patience ends."""
        deadline = time.monotonic() + self.patience_s
        try:
            return _RETRY.call_with_retry(
                lambda: command(self._client),
                lambda error: None,
                lambda error: not isinstance(error, _DENIED) and time.monotonic() < deadline,
            )
        except RedisError as error:
            cause = _cause_of(error)
            if cause is None:
                raise
            raise Unavailable("store", cause) from error


def client_of(url: str) -> Redis:
    """A client that tries once and waits `CALL_S` at most."""
    return Redis.from_url(
        url,
        socket_timeout=CALL_S,
        socket_connect_timeout=CALL_S,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )


def _cause_of(error: RedisError) -> str | None:
    """Why nothing can be read or written now, without address or password; None: a defect."""
    if isinstance(error, _DENIED):
        return f"refused our password: {error}"
    if isinstance(error, OutOfMemoryError):
        return "out of memory"
    refused = str(error).startswith(("OOM ", "MISCONF ", "READONLY "))  # nothing was written
    if refused or isinstance(error, (*_AWAY, ReadOnlyError)):
        return type(error).__name__
    return None

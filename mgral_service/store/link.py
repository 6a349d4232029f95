"""The way to a Redis or Valkey server: patient with one that restarts, fit to travel by pickle."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from redis import Redis
from redis.backoff import ExponentialBackoff, NoBackoff
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

T = TypeVar("T")

CALL_S = 5.0  # longest wait for one answer
_PAUSES = ExponentialBackoff(cap=1.0, base=0.05)


class Link:
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

    def __reduce__(self) -> tuple[type[Link], tuple[str, str, float]]:
        return Link, (self.url, self.prefix, self.patience_s)

    def key(self, *parts: str) -> str:
        return self.prefix + ":".join(parts)

    def script(self, lua: str, keys: Sequence[str], *args: str | int | float) -> list[Any]:
        """What a script returns: a list whose bytes are text."""
        answer = self.call(lambda client: client.register_script(lua)(keys=keys, args=args))
        return [one.decode() if isinstance(one, bytes) else one for one in cast("Any", answer)]

    def call(self, command: Callable[[Redis], Any]) -> Any:
        """What `command` returns for the client; Unavailable when patience ends."""
        deadline = time.monotonic() + self.patience_s
        failures = 0
        while True:
            try:
                return command(self._client)
            except (AuthenticationError, AuthorizationError) as error:
                raise Unavailable("store", f"refused our password: {error}") from error
            except (ConnectionError, TimeoutError) as error:
                failures += 1
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Unavailable("store", _words(error)) from error
                time.sleep(min(left, _PAUSES.compute(failures) * random.uniform(0.5, 1.0)))
            except RedisError as error:
                if _is_full(error):
                    raise Unavailable("store", _words(error)) from error
                raise


def client_of(url: str) -> Redis:
    """A client that tries once and waits `CALL_S` at most."""
    return Redis.from_url(
        url,
        socket_timeout=CALL_S,
        socket_connect_timeout=CALL_S,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=0,
    )


def _is_full(error: RedisError) -> bool:
    """Out of memory, out of disk, or a replica: refused before anything was written."""
    full = isinstance(error, OutOfMemoryError | ReadOnlyError)
    return full or str(error).startswith(("OOM ", "MISCONF ", "READONLY "))


def _words(error: Exception) -> str:
    """The first sentence of an error: no address, no password."""
    kind = type(error).__name__
    return "out of memory" if isinstance(error, OutOfMemoryError) else kind

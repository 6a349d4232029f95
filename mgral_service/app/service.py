"""The service on one machine (`mgral up`): embedded store, local Ray, Serve application."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2 as httpx
import psutil

from mgral_service.app import wiring
from mgral_service.app.settings import Settings
from mgral_service.domain.errors import Conflict, InvalidInput, Unavailable

START_S = 180.0
STOP_S = 60.0
POLL_S = 0.2
ROUNDING_S = 2.0  # of a process's start


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """SIGTERM unwinds the block as SIGINT does."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def up(settings: Settings, say: Callable[[str], None]) -> None:
    """Run the service in this process until SIGINT or SIGTERM. Conflict if it runs already."""
    if not settings.loopback and settings.token is None:
        raise InvalidInput("MGRAL_TOKEN", f"must be set to listen on {settings.host}")
    if (pid := running(settings.home)) is not None:
        raise Conflict(f"the service runs already (process {pid}): stop it with `mgral down`")
    home = settings.home.resolve()
    home.mkdir(parents=True, exist_ok=True)
    state = home / "up.json"
    use_token(home)
    from mgral_service.cluster.local import local_cluster, serve_here

    with exit_on_sigterm(), wiring.with_store(settings) as settings:
        assert settings.redis_url is not None
        jobs_port = free_port()
        os.environ.update(
            MGRAL_HOME=str(home),
            MGRAL_REDIS_URL=settings.redis_url.get_secret_value(),
            MGRAL_JOBS_URL=f"http://127.0.0.1:{jobs_port}",
        )
        url = f"http://{settings.host}:{settings.port}"
        pid = os.getpid()
        state.write_text(json.dumps({"pid": pid, "start": _start_s(pid), "url": url}))
        try:
            with local_cluster(jobs_port):
                stop = threading.Event()
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, lambda *_: stop.set())
                serve_here(wiring.serve_application({}), settings.host, settings.port)
                say(f"mgral answers at {url}, its API is described at {url}/docs")
                stop.wait()
                say("stopping")
        finally:
            state.unlink(missing_ok=True)


def up_detached(settings: Settings, log: Path) -> tuple[str, subprocess.Popen[bytes]]:
    """Start `mgral up` in the background; its URL and process, once it answers.

    Unavailable, with the end of its log, if it ends or does not answer in time.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", "mgral_service", "up"],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
            env={**os.environ, **environment(settings)},
        )
    url = f"http://{settings.host}:{settings.port}"
    started = False
    try:
        _wait_until(lambda: process.poll() is not None or ready(url), START_S)
        started = process.poll() is None and ready(url)
    finally:
        if not started:  # an interruption ends it too
            process.terminate()
            process.wait(STOP_S)
    if started:
        return url, process
    end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise Unavailable("the service", f"it did not start; the end of {log}:\n{end}")


def ready(url: str) -> bool:
    """Whether the gateway at `url` and all it needs answer."""
    try:
        return bool(httpx.get(f"{url}/readyz", timeout=5).status_code == 200)
    except httpx.HTTPError:
        return False


def down(settings: Settings) -> bool:
    """Stop the service of this home; False if none runs."""
    pid = running(settings.home)
    if pid is None:
        return False
    os.kill(pid, signal.SIGTERM)
    if not _wait_until(lambda: not _alive(pid), STOP_S):
        raise Unavailable("the service", f"process {pid} did not stop within {STOP_S:.0f} s")
    return True


def _wait_until(done: Callable[[], bool], patience_s: float) -> bool:
    """False if it is not done in time."""
    deadline = time.monotonic() + patience_s
    while not (result := done()) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return result


def use_token(folder: Path) -> None:
    """Ray's token authentication for this process and its children; a token is made once.

    Ray reads the mode when it is first imported, so this comes before. A token that the
    environment names already stays.
    """
    os.environ["RAY_AUTH_MODE"] = "token"
    if {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        return
    file = folder / "ray_token"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(file)


def running(home: Path) -> int | None:
    """The process id of this home's service; None for another process that has its number now."""
    try:
        state = json.loads((home / "up.json").read_text())
        pid = int(state["pid"])
        same = abs(_start_s(pid) - state["start"]) < ROUNDING_S and pid != os.getpid()
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return None
    return pid if same and _alive(pid) else None


def environment(settings: Settings) -> dict[str, str]:
    """The settings as a child process reads them."""
    names = {"home": str(settings.home.resolve()), "host": settings.host}
    names["port"] = str(settings.port)
    if settings.redis_url is not None:
        names["redis_url"] = settings.redis_url.get_secret_value()
    if settings.bearer is not None:
        names["token"] = settings.bearer
    return {f"MGRAL_{name.upper()}": value for name, value in names.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _start_s(pid: int) -> float:
    """From the start of the machine to that of the process, wherever its clock was set since."""
    return psutil.Process(pid).create_time() - psutil.boot_time()

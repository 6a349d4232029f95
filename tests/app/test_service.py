import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from mgral_service.app import service
from mgral_service.app.settings import Settings
from mgral_service.domain.errors import InvalidInput, Unavailable


def test_a_public_address_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="MGRAL_TOKEN"):
        service.up(Settings(home=tmp_path, host="0.0.0.0"), print)


def test_nothing_runs_where_nothing_was_started(tmp_path: Path) -> None:
    assert service.running(tmp_path) is None
    assert service.down(Settings(home=tmp_path)) is False


def test_a_process_that_has_the_number_by_now_is_not_the_service(tmp_path: Path) -> None:
    """After a restart of the machine, or of a container, where it is our own."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        for pid in (other.pid, os.getpid()):
            started = psutil.Process(pid).create_time() - psutil.boot_time()
            for start in (started, started - 60):
                (tmp_path / "up.json").write_text(json.dumps({"pid": pid, "start": start}))
                same = pid == other.pid and start == started
                assert service.running(tmp_path) == (pid if same else None)
        other.terminate()


def test_a_state_file_of_a_dead_process_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text(json.dumps({"pid": 2**22 + 1}))
    assert service.running(tmp_path) is None


def test_an_interrupted_start_leaves_no_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def sleeper(*given: Any, **also: Any) -> subprocess.Popen[bytes]:
        started.append(popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[0]

    def interrupted(url: str) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", sleeper)
    monkeypatch.setattr(service, "ready", interrupted)
    with pytest.raises(KeyboardInterrupt):
        service.up_detached(Settings(home=tmp_path), tmp_path / "up.log")
    assert started[0].wait(10) == -signal.SIGTERM


def test_a_start_that_fails_shows_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = subprocess.Popen

    def fails(*given: Any, **options: Any) -> subprocess.Popen[bytes]:
        return popen([sys.executable, "-c", "print('no room')"], stdout=options["stdout"])

    monkeypatch.setattr(subprocess, "Popen", fails)
    with pytest.raises(Unavailable, match="no room"):
        service.up_detached(Settings(home=tmp_path, port=service.free_port()), tmp_path / "up.log")

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mgral_service import service
from mgral_service.client import Client
from mgral_service.domain.errors import InvalidInput
from mgral_service.settings import Settings


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
            for began in (service._began(pid), "1"):
                (tmp_path / "up.json").write_text(json.dumps({"pid": pid, "began": began}))
                known = pid == other.pid and began != "1"
                assert service.running(tmp_path) == (pid if known else None)
        other.terminate()


def test_a_state_file_of_a_dead_process_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text(json.dumps({"pid": 2**22 + 1}))
    assert service.running(tmp_path) is None


def test_who_is_interrupted_while_it_starts_leaves_no_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def sleeper(*given: Any, **also: Any) -> subprocess.Popen[bytes]:
        started.append(popen([sys.executable, "-c", "import time; time.sleep(60)"]))
        return started[0]

    def interrupted(self: Client) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", sleeper)
    monkeypatch.setattr(Client, "ready", interrupted)
    with pytest.raises(KeyboardInterrupt):
        service.up_detached(Settings(home=tmp_path), tmp_path / "up.log")
    assert started[0].wait(10) == -signal.SIGTERM

"""A demo that is told to end, over doubles: nothing it started is left."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mgral_service import demo, service
from mgral_service.datasets import oracle
from mgral_service.domain.specs import DatasetSpec


class Process:
    waited = False

    def wait(self) -> None:
        self.waited = True


def test_sigterm_stops_the_service_that_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process()
    downed: list[Any] = []

    def ended(*given: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr(oracle, "write_held_back", lambda *given: DatasetSpec("d", "/nowhere"))
    monkeypatch.setattr(service, "up_detached", lambda *given: ("http://127.0.0.1:1", process))
    monkeypatch.setattr(service, "down", downed.append)
    monkeypatch.setattr(demo, "_round", ended)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        demo.run_demo(tmp_path / "d", tmp_path / "out", 0, Console(), Console(stderr=True))
    assert caught.value.code == 143
    assert len(downed) == 1
    assert process.waited
    assert signal.getsignal(signal.SIGTERM) is before

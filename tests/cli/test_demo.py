"""The demo over doubles; a whole round: `make demo`."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mgral_service import datasets
from mgral_service.app import service, wiring
from mgral_service.cli import demo
from mgral_service.datasets.oracle import hold_back
from mgral_service.domain.specs import CycleSpec, DetectorSpec
from tests.datasets.folders import coco_folder
from tests.doubles import FakeDetector


class Process:
    waited = False

    def wait(self) -> None:
        self.waited = True


def test_sigterm_stops_the_service_that_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process()
    stopped: list[Any] = []

    def ended(*given: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    coco_folder(tmp_path / "pets", train=4, test=1).write()
    monkeypatch.setattr(demo, "OWN", demo.Regime(2, 1, 64, 1, 2))
    monkeypatch.setattr(service, "up_detached", lambda *given: ("http://127.0.0.1:1", process))
    monkeypatch.setattr(service, "down", stopped.append)
    monkeypatch.setattr(demo, "_round", ended)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        demo.run_demo(tmp_path / "pets", tmp_path / "out", 0, Console(), Console(stderr=True))
    assert caught.value.code == 143
    assert len(stopped) == 1
    assert process.waited
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_random_arm_trains_on_as_many_images_of_the_pool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = datasets.ingest(coco_folder(tmp_path / "pets", train=12, test=2).write())
    held = hold_back(whole, tmp_path / "held", 5, 0)
    detector = FakeDetector()
    monkeypatch.setattr(wiring, "task_detector", lambda *given: detector)
    batches = []
    for seed in (0, 0, 1):
        spec = CycleSpec("pets", budget=3, seed=seed, detector=DetectorSpec(size=64))
        assert demo.random_arm(spec, whole, held, "cpu") == 0.2 + 0.01 * 8
        batches.append({*detector.fits[-1]} - {*held.images.labelled})
        assert len(batches[-1]) == 3
        assert batches[-1] <= {*held.images.unlabelled}
    assert batches[0] == batches[1] != batches[2]

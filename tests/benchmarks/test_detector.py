from pathlib import Path
from typing import Any

import pytest

from benchmarks import detector
from benchmarks.lib.harness import Options
from mgral_service.datasets.digits import write_digits
from mgral_service.domain.specs import DetectorSpec


def test_three_trainings_each_with_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_digits(tmp_path / "digits", 4, 2, size=64)
    trained: list[DetectorSpec] = []

    def train_and_score(spec: DetectorSpec, *others: Any) -> tuple[float, float, float]:
        trained.append(spec)
        return 0.5, 1.0, 2.0

    monkeypatch.setattr(detector, "dataset", lambda name: folder)
    monkeypatch.setattr(detector, "train_and_score", train_and_score)
    monkeypatch.setattr(detector, "TRAINING_IMAGES", 3)
    monkeypatch.setattr(detector, "limit_threads", lambda count: None)  # of all later tests
    figures = detector.measure(Options(quick=False, device="cpu"))
    assert [(spec.steps, spec.freeze_backbone) for spec in trained] == [
        (150, True),
        (100, True),
        (150, False),
    ]
    assert figures["ap50_full"] == 0.5
    assert figures["train_s_100"] == 1.0
    assert figures["train_cpu_s"] == 2.0
    assert len(figures) == 9

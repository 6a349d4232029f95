"""The detector benchmark runs and gives its figures, good or bad."""

from dataclasses import replace

import pytest

from benchmarks import detector
from benchmarks.harness import DATASETS, Options


@pytest.mark.skipif(not (DATASETS / "bccd").is_dir(), reason="needs the shared dataset bccd")
def test_quick_gives_every_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "SPEC", replace(detector.SPEC, steps=1))
    figures = detector.measure(Options(quick=True, device="cpu"))
    names = {"ap50", "train_s", "train_cpu_s"}
    assert set(figures) == names | {f"{name}{kind}" for name in names for kind in ("_100", "_full")}
    assert all(0 <= figures[name] <= 1 for name in ("ap50", "ap50_100", "ap50_full"))
    assert all(value > 0 for name, value in figures.items() if name.startswith("train"))

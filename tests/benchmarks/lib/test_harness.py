"""Flags in, a table and JSON out."""

import argparse
import json
from pathlib import Path

import pytest

from benchmarks.lib import harness


def test_figures_are_printed_and_written_with_how_they_came_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given: list[harness.Options] = []

    def measure(options: harness.Options) -> harness.Figures:
        given.append(options)
        return {"ap50": 0.5, "train_s": 12}

    out = tmp_path / "results" / "x.json"
    harness.main("x", "an example", measure, ["--quick", "--out", str(out)])
    result = json.loads(out.read_text())
    assert given == [harness.Options(quick=True, device="cpu")]
    assert result["command"] == "python -m benchmarks.x --quick"
    assert result["figures"] == {"ap50": 0.5, "train_s": 12.0}
    assert result["machine"]["cores"] >= 1
    assert "torch" in result["versions"]
    printed = capsys.readouterr().out
    assert "train_s" in printed
    assert str(out) in printed


def test_flags_of_its_own_reach_the_benchmark_and_stand_in_the_command(tmp_path: Path) -> None:
    own = argparse.ArgumentParser(add_help=False)
    own.add_argument("--world", nargs="+")
    own.add_argument("--seeds", type=int)
    own.add_argument("--local", action="store_true")
    given: list[harness.Options] = []

    def measure(options: harness.Options) -> harness.Figures:
        given.append(options)
        return {"ap50": 0.5}

    out = tmp_path / "x.json"
    arguments = ["--world", "a", "b", "--local", "--out", str(out)]
    harness.main("x", "an example", measure, arguments, own)
    assert given[0].own == {"world": ["a", "b"], "seeds": None, "local": True}
    assert json.loads(out.read_text())["command"] == "python -m benchmarks.x --world a b --local"


def test_a_missing_dataset_ends_with_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "DATASETS", tmp_path)
    with pytest.raises(SystemExit, match="MGRAL_DATASETS"):
        harness.dataset("bccd")

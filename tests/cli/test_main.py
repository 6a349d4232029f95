from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mgral_service.app.service import free_port
from mgral_service.cli import cycles
from mgral_service.cli.main import app
from tests.commands import mgral


@pytest.mark.parametrize(
    "words", [(), ("cycle",), ("data",), ("run",), ("estimate",), ("select",), ("scan",)]
)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(app, [*words, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.stdout


def test_an_unreachable_service_is_exit_code_75(tmp_path: Path) -> None:
    result = mgral("cycle", "ls", HOME=str(tmp_path), MGRAL_URL=f"http://127.0.0.1:{free_port()}")
    assert result.returncode == 75
    assert "cannot be reached" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_wrong_experiment_is_exit_code_6_and_names_the_key(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("initial = 1\n[dataset]\nname = 'x'\nroot = '.'\n[cycle]\nbudget = 5\n")
    result = mgral("run", str(file), HOME=str(tmp_path))
    assert result.returncode == 6
    assert "initial" in result.stderr


VOC = Path(__file__).parents[2] / "presets/voc07_12.toml"


COSTS = ("--step-seconds", "3", "3")


@pytest.mark.parametrize("command", [("estimate", str(VOC)), ("run", str(VOC), "--dry-run")])
def test_an_estimate_prints_the_costs_and_starts_nothing(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    """SSD300: 120,000 steps of 3 s are 100 h; 9 cycles of 2 detectors and 200 proxies."""
    result = CliRunner().invoke(app, [*command, *COSTS], env={"HOME": str(tmp_path)})
    assert result.exit_code == 0, result.stderr
    shown = " ".join(result.stdout.split())
    assert "120,000 steps of 32 images x 3 s = 100 h" in shown
    assert "9 │ 9,000 │ 1,000 │ 10,000 │ 2 │ 200 │ 20,200 h │ 5,200 h" in shown
    assert "agents 1 a cycle, 2,200 iterations each" in shown
    assert "trainings 1,818 device 182,000 h of training alone" in shown
    assert "VOCdevkit' is not a folder on this machine" in shown
    assert list(tmp_path.iterdir()) == []


def test_weights_of_the_command_line_override_those_of_the_file() -> None:
    result = CliRunner().invoke(app, ["estimate", str(VOC), *COSTS, "--weights", "Other.V1"])
    assert "weights Other.V1: no file here" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        ("run",),
        ("run", "--cycle", "cyc_1", "--dry-run"),
        ("run", "--cycle", "cyc_1", "--weights", "x"),
        ("run", str(VOC), "--step-seconds", "1", "1"),
        ("estimate", str(VOC), "--step-seconds", "0", "1"),
    ],
)
def test_options_that_do_not_fit_are_a_usage_error(words: tuple[str, ...]) -> None:
    assert CliRunner().invoke(app, words).exit_code == 2


def test_a_cycle_is_started_with_weights_by_their_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    class Service:
        def start(self, spec: dict[str, Any], key: str | None) -> dict[str, str]:
            sent.append(spec)
            return {"id": "cyc_1"}

    monkeypatch.setattr(cycles, "gateway", Service)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    (tmp_path / "spec.json").write_text('{"detector": {"name": "ssd300", "weights": "old"}}')
    cycles.start("pets", 5, file=Path("spec.json"), weights="w.pth")
    assert sent[0]["detector"] == {"name": "ssd300", "weights": str(tmp_path / "w.pth")}

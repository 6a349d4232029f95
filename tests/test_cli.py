from pathlib import Path
from typing import Any

import pytest

from mgral_service import cli
from mgral_service.service import free_port
from tests.commands import mgral


@pytest.mark.parametrize("words", [(), ("cycle",), ("data",), ("run",), ("select",)])
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    answer = mgral(*words, "--help")
    assert answer.returncode == 0
    assert "Usage" in answer.stdout


def test_an_unreachable_service_is_exit_code_75(tmp_path: Path) -> None:
    answer = mgral("cycle", "ls", HOME=str(tmp_path), MGRAL_URL=f"http://127.0.0.1:{free_port()}")
    assert answer.returncode == 75
    assert "cannot be reached" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_wrong_experiment_is_exit_code_6_and_names_the_key(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("initial = 1\n[dataset]\nname = 'x'\nroot = '.'\n[cycle]\nbudget = 5\n")
    answer = mgral("run", str(file), HOME=str(tmp_path))
    assert answer.returncode == 6
    assert "initial" in answer.stderr


def test_run_needs_a_file_or_a_cycle(tmp_path: Path) -> None:
    assert mgral("run", HOME=str(tmp_path)).returncode == 2


VOC = Path(__file__).parents[1] / "benchmarks/voc07_12.toml"


def test_a_dry_run_prints_the_plan_and_starts_nothing(tmp_path: Path) -> None:
    """SSD300: 120,000 steps of 3 s are 100 h; 9 cycles of 2 detectors and 220 proxies, 20 of
    which the agent proposes.
    """
    words = ("run", str(VOC), "--dry-run", "--step-seconds", "3", "3")
    answer = mgral(*words, HOME=str(tmp_path))
    assert answer.returncode == 0, answer.stderr
    shown = " ".join(answer.stdout.split())
    assert "120,000 steps of 32 images x 3 s = 100 h" in shown
    assert "9 │ 9,000 │ 1,000 │ 10,000 │ 2 │ 220 │ 22,200 h │ 5,700 h" in shown
    assert "trainings 1,998 device 200,000 h of training alone" in shown
    assert "VOCdevkit' is not a folder on this machine" in shown
    assert list(tmp_path.iterdir()) == []


def test_weights_of_the_command_line_override_those_of_the_file(tmp_path: Path) -> None:
    words = ("run", str(VOC), "--dry-run", "--step-seconds", "3", "3", "--weights", "Other.V1")
    answer = mgral(*words, HOME=str(tmp_path))
    assert "weights Other.V1: no file here" in " ".join(answer.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        ("--cycle", "cyc_1", "--dry-run"),
        ("--cycle", "cyc_1", "--weights", "x"),
        (str(VOC), "--step-seconds", "1", "1"),
        (str(VOC), "--dry-run", "--step-seconds", "0", "1"),
    ],
)
def test_options_of_run_that_do_not_fit_are_a_usage_error(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    assert mgral("run", *words, HOME=str(tmp_path)).returncode == 2


def test_a_cycle_is_started_with_weights_by_their_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, Any]] = []

    class Service:
        def start(self, spec: dict[str, Any], key: str | None) -> dict[str, str]:
            sent.append(spec)
            return {"id": "cyc_1"}

    monkeypatch.setattr(cli, "gateway", Service)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").touch()
    (tmp_path / "spec.json").write_text('{"detector": {"name": "ssd300", "weights": "old"}}')
    cli.start("pets", 5, file=Path("spec.json"), weights="w.pth")
    assert sent[0]["detector"] == {"name": "ssd300", "weights": str(tmp_path / "w.pth")}

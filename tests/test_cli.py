import json
import subprocess
import sys
from pathlib import Path

import pytest

from mgral_service.service import free_port


def _mgral(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mgral_service", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PATH": "", "COLUMNS": "200", **environment},
    )


@pytest.mark.parametrize("words", [(), ("cycle",), ("data",), ("run",), ("select",)])
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    answer = _mgral(*words, "--help")
    assert answer.returncode == 0
    assert "Usage" in answer.stdout


def test_an_unreachable_service_is_exit_code_75(tmp_path: Path) -> None:
    answer = _mgral("cycle", "ls", HOME=str(tmp_path), MGRAL_URL=f"http://127.0.0.1:{free_port()}")
    assert answer.returncode == 75
    assert "cannot be reached" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_a_wrong_experiment_is_exit_code_6_and_names_the_key(tmp_path: Path) -> None:
    file = tmp_path / "x.toml"
    file.write_text("initial = 1\n[dataset]\nname = 'x'\nroot = '.'\n[cycle]\nbudget = 5\n")
    answer = _mgral("run", str(file), HOME=str(tmp_path))
    assert answer.returncode == 6
    assert "initial" in answer.stderr


def test_labels_are_held_back_and_answer_a_selection(tmp_path: Path) -> None:
    data, held, asked = tmp_path / "data", tmp_path / "held", tmp_path / "asked.json"
    home = str(tmp_path)
    small = ("--images", "8", "--size", "64")
    assert _mgral("data", "digits", "--out", str(data), *small, HOME=home).returncode == 0
    hide = _mgral("data", "hold-back", str(data), "--out", str(held), "--initial", "5", HOME=home)
    assert hide.returncode == 0, hide.stderr
    hidden = json.loads((held / "unlabelled.json").read_text())
    assert len(hidden["images"]) == 3
    assert not hidden.get("annotations")
    asked.write_text(json.dumps({"images": hidden["images"]}))
    truth, out = data / "train.json", tmp_path / "answer.json"
    told = _mgral("data", "answer", str(asked), str(truth), "--out", str(out), HOME=home)
    assert told.returncode == 0, told.stderr
    assert json.loads(out.read_text())["annotations"]


def test_run_needs_a_file_or_a_cycle(tmp_path: Path) -> None:
    assert _mgral("run", HOME=str(tmp_path)).returncode == 2

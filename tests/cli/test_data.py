import json
from pathlib import Path

from tests.commands import mgral


def test_labels_are_held_back_and_answer_a_selection(tmp_path: Path) -> None:
    data, held, asked = tmp_path / "data", tmp_path / "held", tmp_path / "asked.json"
    home = str(tmp_path)
    small = ("--images", "8", "--size", "64")
    assert mgral("data", "digits", "--out", str(data), *small, HOME=home).returncode == 0
    hide = mgral("data", "hold-back", str(data), "--out", str(held), "--initial", "5", HOME=home)
    assert hide.returncode == 0, hide.stderr
    hidden = json.loads((held / "unlabelled.json").read_text())
    assert len(hidden["images"]) == 3
    assert not hidden.get("annotations")
    asked.write_text(json.dumps({"images": hidden["images"]}))
    truth, out = data / "train.json", tmp_path / "answer.json"
    answered = mgral("data", "answer", str(asked), str(truth), "--out", str(out), HOME=home)
    assert answered.returncode == 0, answered.stderr
    assert json.loads(out.read_text())["annotations"]

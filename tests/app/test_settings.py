from pathlib import Path

import pytest

from mgral_service.app.settings import experiment, from_environment
from mgral_service.domain.errors import InvalidInput

FILE = """
initial = 10
[dataset]
name = "cells"
root = "data"
[cycle]
budget = 5
"""


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MGRAL_PORT", "eighty")
    with pytest.raises(InvalidInput, match="MGRAL_PORT"):
        from_environment()


def test_an_empty_token_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MGRAL_TOKEN", "")
    with pytest.raises(InvalidInput, match="MGRAL_TOKEN"):
        from_environment()


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MGRAL_TOKEN", "canary")
    assert "canary" not in repr(from_environment())


def test_an_experiment_is_relative_to_its_file(tmp_path: Path) -> None:
    file = tmp_path / "cells.toml"
    file.write_text(FILE)
    spec = experiment(file)
    assert spec.dataset.root == str(tmp_path / "data")
    assert spec.cycle.dataset == "cells"
    assert spec.cycle.table.records == 96


def test_a_weights_file_beside_the_experiment_is_found_and_a_name_stays(tmp_path: Path) -> None:
    (tmp_path / "vgg.pth").touch()
    file = tmp_path / "cells.toml"
    for given, weights in (
        ("vgg.pth", str(tmp_path / "vgg.pth")),
        ("VGG16_Weights.X", "VGG16_Weights.X"),
    ):
        file.write_text(FILE + f'[cycle.detector]\nweights = "{given}"\n')
        assert experiment(file).cycle.detector.weights == weights


def test_a_method_is_a_recipe_beneath_what_the_file_names(tmp_path: Path) -> None:
    file = tmp_path / "cells.toml"
    file.write_text(FILE + 'method = "paper"\n[cycle.table]\nrecords = 7\n')
    cycle = experiment(file).cycle
    assert (cycle.table.records, cycle.table.advanced.value_model) == (7, "idw")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (FILE + "budgte = 6\n", "cycle.budgte"),
        (FILE + "strategy = 7\n", "cycle.strategy"),
        (FILE + "[cycle.table]\nrecords = 2\n", "table.records"),
        (FILE + "[cycle.table]\nrotations = 2\n", r"cycle\.table\.rotations: is now table\.folds"),
        (FILE.replace("[cycle]", "seed = 1\n[cycle]"), r"dataset\.seed: was removed"),
        ("initial = \n", "is not TOML"),
        (FILE.replace("budget = 5", "budget = nan"), "cycle.budget"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "cells.toml"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=named) as caught:
        experiment(file)
    assert "cells.toml" in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"absent\.toml"):
        experiment(tmp_path / "absent.toml")

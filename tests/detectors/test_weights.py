"""Initial weights: from files of both kinds, by name, and into a network or refused in words."""

from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models import VGG16_Weights, WeightsEnum

from mgral_service.detectors.weights import read_weights, take
from mgral_service.domain.errors import InvalidInput

TABLE = {"0.weight": torch.arange(6.0).view(2, 3), "0.bias": torch.tensor([7.0, 8.0])}
NAME = "VGG16_Weights.IMAGENET1K_FEATURES"


def layers() -> nn.Module:
    """A linear layer of 3 inputs and 2 outputs, and nothing to learn after it."""
    return nn.Sequential(nn.Linear(3, 2), nn.ReLU())


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    save_file(TABLE, tmp_path / "some.safetensors")
    read = read_weights(str(tmp_path / "some.safetensors"))
    assert sorted(read) == sorted(TABLE)
    assert all(torch.equal(read[name], TABLE[name]) for name in TABLE)


@pytest.mark.parametrize(
    "content",
    [
        TABLE,
        OrderedDict(TABLE),
        {"state_dict": TABLE, "epoch": 3},
        {"model": TABLE, "optimizer": {"lr": 0.1}},
        {"state_dict": {"model": TABLE}},
    ],
    ids=["bare", "ordered", "state_dict", "model", "both"],
)
def test_torchs_file_is_read_out_of_what_training_scripts_wrap_it_in(
    content: dict[str, Any], tmp_path: Path
) -> None:
    torch.save(content, tmp_path / "some.pth")
    read = read_weights(str(tmp_path / "some.pth"))
    assert sorted(read) == sorted(TABLE)
    assert all(torch.equal(read[name], TABLE[name]) for name in TABLE)


def test_a_file_of_the_home_folder_may_be_named_by_its_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save_file(TABLE, tmp_path / "some.safetensors")
    assert sorted(read_weights("~/some.safetensors")) == sorted(TABLE)


class Armed:
    """Whoever unpickles it makes a file."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._mark,)


def test_a_pickled_object_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Armed(tmp_path / "mark")}, tmp_path / "some.pth")
    with pytest.raises(InvalidInput, match=r"some\.pth cannot be read as weights"):
        read_weights(str(tmp_path / "some.pth"))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("name", ["some.pth", "some.safetensors"])
@pytest.mark.parametrize("body", [b"", b"<html>404</html>", b"PK\x03\x04 half of a file"])
def test_a_file_that_holds_no_weights_is_refused(body: bytes, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(body)
    with pytest.raises(InvalidInput, match="cannot be read as weights"):
        read_weights(str(tmp_path / name))


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"state_dict": {"lr": 0.1}}])
def test_a_file_of_other_things_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "some.pth")
    with pytest.raises(InvalidInput, match="no table of tensors"):
        read_weights(str(tmp_path / "some.pth"))


@pytest.mark.parametrize(
    "where",
    ["gone.pth", "/gone/vgg16.safetensors", "resnet50.pth", "Nothing.V1", "VGG16_Weights.MINE"],
)
def test_what_is_neither_file_nor_name_is_refused_with_an_example(where: str) -> None:
    with pytest.raises(
        InvalidInput, match="is no file here and no name torchvision knows"
    ) as raised:
        read_weights(where)
    assert raised.value.where == "detector.weights"
    assert NAME in raised.value.what


def test_a_name_is_asked_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def fetch(self: WeightsEnum, *args: Any, **how: Any) -> dict[str, Any]:
        asked.append((self, how))
        return TABLE

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fetch)
    assert read_weights(NAME) is TABLE
    assert asked == [(VGG16_Weights.IMAGENET1K_FEATURES, {"progress": False, "check_hash": True})]


@pytest.mark.parametrize(
    "error", [URLError("no way there"), TimeoutError("timed out"), RuntimeError("invalid hash")]
)
def test_a_hub_out_of_reach_is_told_with_the_address_to_fetch(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: WeightsEnum, *args: Any, **how: Any) -> dict[str, Any]:
        raise error

    monkeypatch.setattr(WeightsEnum, "get_state_dict", fail)
    with pytest.raises(InvalidInput) as raised:
        read_weights(NAME)
    for part in (NAME, str(error), VGG16_Weights.IMAGENET1K_FEATURES.url, "detector.weights"):
        assert part in str(raised.value)


def test_a_module_takes_all_it_has_below_a_prefix_and_leaves_the_rest() -> None:
    module = layers()
    given = {f"head.{name}": tensor for name, tensor in TABLE.items()}
    take(module, {**given, "body.0.weight": torch.zeros(9)}, "head.")
    assert all(torch.equal(module.state_dict()[name], TABLE[name]) for name in TABLE)


def test_the_first_missing_name_is_told() -> None:
    with pytest.raises(InvalidInput, match=r"have no 'head\.0\.weight'"):
        take(layers(), TABLE, "head.")


def test_the_first_tensor_of_another_shape_is_told_with_both_shapes() -> None:
    wrong = {"0.weight": torch.zeros(2, 4), "0.bias": torch.zeros(5)}
    with pytest.raises(InvalidInput, match=r"'0\.weight' is \[2, 4\] there, \[2, 3\] here"):
        take(layers(), wrong)


def test_a_module_that_cannot_take_all_keeps_its_own() -> None:
    module = layers()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with pytest.raises(InvalidInput, match=r"0\.bias"):
        take(module, {"0.weight": TABLE["0.weight"]})
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())

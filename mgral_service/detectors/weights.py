"""Initial weights, from a file or by torchvision's name, and their way into a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_weight

from mgral_service.domain.errors import InvalidInput

WHERE = "detector.weights"


def read_weights(source: str) -> dict[str, Tensor]:
    """A `.safetensors` file, any other file as torch's (tensors only), or the weights of that name.

    InvalidInput if it is no such file and no name, or if the name's file cannot be fetched.
    """
    file = Path(source).expanduser()
    if file.is_file():
        return _read_file(file)
    try:
        named = get_weight(source)
    except (ValueError, KeyError, TypeError):  # "nothing", "VGG16_Weights.MINE", "resnet50.pth"
        raise InvalidInput(
            WHERE,
            f"{source!r} is no file here and no name torchvision knows: give a path, or a name "
            "such as 'VGG16_Weights.IMAGENET1K_FEATURES'",
        ) from None
    try:
        fetched: dict[str, Tensor] = named.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no way there, or not the file its name promises
        raise InvalidInput(
            WHERE,
            f"{source} cannot be fetched ({error}): fetch {named.url} elsewhere and give the file",
        ) from error
    return fetched


def _read_file(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            return dict(load_file(file))
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidInput(WHERE, f"{file} cannot be read as weights: {reason}") from None
    for key in ("state_dict", "model"):  # what training scripts wrap them in
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise InvalidInput(WHERE, f"{file} holds no table of tensors by name")
    return content


def take(
    module: nn.Module, weights: Mapping[str, Tensor], prefix: str = "", where: str = WHERE
) -> None:
    """Load all of `module` from the names that begin with `prefix`; other names are left alone.

    InvalidInput, about `where`, names the first that is missing or of another shape.
    """
    own = module.state_dict()
    for name, tensor in own.items():
        given = weights.get(prefix + name)
        if given is None:
            raise InvalidInput(where, f"have no {prefix + name!r}")
        if given.shape != tensor.shape:
            raise InvalidInput(
                where,
                f"{prefix + name!r} is {list(given.shape)} there, {list(tensor.shape)} here",
            )
    module.load_state_dict({name: weights[prefix + name] for name in own})

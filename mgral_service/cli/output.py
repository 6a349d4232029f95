"""What the `mgral` commands share: consoles, options, and the client of the gateway."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console

from mgral_service.app import settings
from mgral_service.cli.client import Client
from mgral_service.domain.errors import InvalidInput

LOG_WIDTH = 150  # columns of a table that goes to no terminal
out = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
err = Console(stderr=True)


Out = Annotated[Literal["table", "json"], typer.Option("--output", "-o", help="Format of stdout.")]
Weights = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Initial weights: a file, or a name torchvision knows."),
]


def gateway() -> Client:
    """A client of the gateway at MGRAL_URL."""
    environment = settings.from_environment()
    return Client(environment.url, environment.bearer)


def print_json(value: Any) -> None:
    out.print_json(json.dumps(value))


def read_json(file: Path) -> Any:
    """InvalidInput names a file that cannot be read."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(str(file), f"is not readable JSON: {error}") from None


def print_notes(console: Console, report: Mapping[str, Any]) -> None:
    """report: as the service sends it."""
    for note in report["notes"]:
        console.print(f"  {note['text']}", highlight=False, markup=False)


def weights_path(name: str) -> str:
    """A file as its absolute path, for processes that run elsewhere; a name as it is."""
    file = Path(name).expanduser()
    return str(file.resolve()) if file.is_file() else name

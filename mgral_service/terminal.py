"""What every `mgral` command shares: where its words go, what it reads, whom it asks."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from mgral_service import settings
from mgral_service.client import Client
from mgral_service.domain.errors import InvalidInput

LOG_WIDTH = 150  # columns of a table that goes to no terminal
out = Console(width=None if sys.stdout.isatty() else LOG_WIDTH)
err = Console(stderr=True)


class Output(StrEnum):
    table = "table"
    json = "json"


Out = Annotated[Output, typer.Option("--output", "-o", help="What stdout gets.")]


def gateway() -> Client:
    """A client of the one that MGRAL_URL names."""
    known = settings.from_environment()
    return Client(known.url, known.token.get_secret_value() if known.token else None)


def print_json(value: Any) -> None:
    out.print_json(json.dumps(value))


def read_json(file: Path) -> Any:
    """InvalidInput names a file that is none."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InvalidInput(str(file), f"is no readable JSON: {error}") from None

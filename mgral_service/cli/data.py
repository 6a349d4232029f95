"""`mgral data ...`: make, register and list datasets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mgral_service import codec
from mgral_service.cli.output import err, gateway, out, print_json, read_json
from mgral_service.cli.progress import Display
from mgral_service.domain.specs import DatasetSpec

app = typer.Typer(no_args_is_help=True, help="Make, register and list datasets.")


@app.command("digits")
def digits(
    to: Annotated[Path, typer.Option("--out", help="A new folder.")],
    images: Annotated[int, typer.Option(min=4)] = 600,
    size: Annotated[int, typer.Option(min=64)] = 160,
    seed: int = 0,
) -> None:
    """Write scenes of real handwritten digits as a COCO folder."""
    from mgral_service.datasets.digits import write_digits

    with Display(err) as show:
        folder = write_digits(
            to,
            images,
            size=size,
            seed=seed,
            report=lambda progress: show("progress", codec.plain(progress)),
        )
    out.print(str(folder), highlight=False)


@app.command("hold-back")
def hold_back(
    folder: Annotated[Path, typer.Argument(help="images/, train.json, test.json")],
    to: Annotated[Path, typer.Option("--out", help="A new folder.")],
    initial: Annotated[int, typer.Option(min=2, help="Images that keep their labels.")],
    seed: int = 0,
) -> None:
    """Hide most labels of a COCO folder: writes labelled.json, unlabelled.json and test.json."""
    from mgral_service.datasets.oracle import write_held_back

    test = "test.json" if (folder / "test.json").exists() else None
    write_held_back(DatasetSpec("data", str(folder.resolve()), test=test), to, initial, seed)
    out.print(str(to), highlight=False)


@app.command("answer")
def answer(
    asked: Annotated[Path, typer.Argument(help="A selection: GET /selections/ID?format=coco")],
    truth: Annotated[Path, typer.Argument(help="COCO JSON with the labels of these images.")],
    to: Annotated[Path, typer.Option("--out")],
) -> None:
    """Answer a selection with the labels of `truth`, as an annotator would."""
    from mgral_service.datasets.answers import answer_from

    to.write_text(json.dumps(answer_from(read_json(asked), read_json(truth))))
    out.print(str(to), highlight=False)


@app.command("add")
def add_dataset(
    name: str,
    root: Path,
    format: Annotated[str, typer.Option(help="Annotation format: coco or voc.")] = "coco",
    images: str = "images",
    labelled: str = "train.json",
    unlabelled: Annotated[str | None, typer.Option()] = None,
    scoring: Annotated[str | None, typer.Option()] = None,
    test: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Register a dataset; print what was accepted, repaired and refused."""
    spec = DatasetSpec(
        name=name,
        root=str(root.resolve()),
        format=format,
        images=images,
        labelled=labelled,
        unlabelled=unlabelled,
        scoring=scoring,
        test=test,
    )
    print_json(gateway().add_dataset(codec.plain(spec)))


@app.command("ls")
def list_datasets() -> None:
    """Registered datasets as JSON."""
    print_json(gateway().call("GET", "/datasets"))

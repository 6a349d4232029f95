"""The `mgral` command: parse, wire, print. Data goes to stdout, progress and errors to stderr."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from mgral_service import __version__, codec
from mgral_service.app import settings, wiring
from mgral_service.cli import cycles, data, estimate
from mgral_service.cli.client import Refused
from mgral_service.cli.output import (
    Out,
    Weights,
    err,
    gateway,
    out,
    print_json,
    print_notes,
    read_json,
    weights_path,
)
from mgral_service.cli.progress import Display
from mgral_service.domain.errors import Conflict, InvalidInput, MgralError, NotFound, Unavailable
from mgral_service.domain.records import Selection
from mgral_service.domain.report import CycleReport
from mgral_service.domain.specs import ExperimentSpec

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Active learning for object detection: which images should be labelled next?",
)
app.add_typer(cycles.app, name="cycle")
app.add_typer(data.app, name="data")

EXIT = {NotFound: 3, Conflict: 4, Refused: 5, InvalidInput: 6, Unavailable: 75}
Device = Annotated[
    Literal["cpu", "cuda", "auto"] | None, typer.Option(help="Instead of MGRAL_DEVICE.")
]
StepSeconds = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="DETECTOR PROXY",
        help="Seconds of a training step for the estimate, instead of measuring them.",
    ),
]


def main() -> None:
    """Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, 5 refused, 6 invalid input,
    75 try again.
    """
    try:
        app()
    except MgralError as error:
        err.print(f"mgral: {error}", style="red", highlight=False, markup=False)
        code = next((code for kind, code in EXIT.items() if isinstance(error, kind)), 1)
        raise SystemExit(code) from None


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)


# --- the service --------------------------------------------------------------------------------


@app.command()
def up(
    detach: Annotated[bool, typer.Option(help="Run in the background.")] = False,
) -> None:
    """Start the service on this machine: store, Ray and gateway, on MGRAL_HOST:MGRAL_PORT."""
    from mgral_service.app import service

    environment = settings.from_environment()
    if detach:
        log = environment.home / "up.log"
        url, _ = service.up_detached(environment, log)
        err.print(f"mgral answers at {url}; log in {log}; stop it with `mgral down`")
    else:
        service.up(environment, err.print)


@app.command()
def down() -> None:
    """Stop the service that `mgral up` started."""
    from mgral_service.app import service

    environment = settings.from_environment()
    stopped = service.down(environment)
    err.print("stopped" if stopped else f"no service runs in {environment.home}")


@app.command()
def doctor(output: Out = "table") -> None:
    """Check store, cluster, GPU, write access and image decoding; each line says what to do."""
    from mgral_service.cli.doctor import checks

    results = checks(settings.from_environment())
    if output == "json":
        print_json([codec.plain(check) for check in results])
    else:
        table = Table("check", "state", "detail")
        for check in results:
            colour = {"ok": "green", "warning": "yellow", "failed": "red"}[check.state]
            table.add_row(check.name, f"[{colour}]{check.state}[/]", check.detail)
        out.print(table)
    if any(check.state == "failed" for check in results):
        raise typer.Exit(1)


# --- without the gateway ------------------------------------------------------------------------


@app.command()
def run(
    file: Annotated[Path | None, typer.Argument(help="An experiment file (TOML).")] = None,
    cycle: Annotated[str | None, typer.Option(help="Drive this cycle of the service.")] = None,
    to: Annotated[Path, typer.Option("--out", help="Folder for results.")] = Path("out/run"),
    weights: Weights = None,
    device: Device = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="As `mgral estimate FILE`.")] = False,
    step_seconds: StepSeconds = None,
) -> None:
    """Run a whole experiment from FILE, or drive a cycle of the service.

    Run again after an interruption, it goes on where it stopped.
    """
    if (file is None) == (cycle is None):
        raise typer.BadParameter("give either FILE or --cycle")
    if cycle is not None and (dry or weights is not None):
        raise typer.BadParameter("--dry-run and --weights go with FILE, not with --cycle")
    if step_seconds is not None and not dry:
        raise typer.BadParameter("--step-seconds goes with --dry-run")
    if file is not None and dry:
        return estimate_cost(file, step_seconds, weights, device)
    environment = _environment(device)
    if cycle is not None:
        return _drive(cycle, environment)
    assert file is not None
    from mgral_service.app.experiment import run_experiment

    environment = environment.model_copy(update={"home": environment.home.resolve()})
    spec = _experiment(file, weights)
    with Display(err) as show:
        results = run_experiment(spec, environment, show, to)
    out.print(_scores(f"{file}: {spec.cycle.metric}", results))
    for number, (_, report) in enumerate(results, start=1):
        out.print(f"cycle {number}")
        print_notes(out, codec.plain(report))
    return out.print(f"selections, reports and figures: {to}")


@app.command("estimate")
def estimate_cost(
    file: Annotated[Path, typer.Argument(help="An experiment file (TOML).")],
    step_seconds: StepSeconds = None,
    weights: Weights = None,
    device: Device = None,
) -> None:
    """Print what an experiment would cost: annotations, trainings, hours and bytes."""
    if step_seconds is not None and not all(0 < seconds < inf for seconds in step_seconds):
        raise typer.BadParameter("--step-seconds are two numbers above 0")
    estimate.show(_experiment(file, weights), _environment(device), step_seconds, out, err)


def _environment(device: str | None) -> settings.Settings:
    environment = settings.from_environment()
    return environment if device is None else environment.model_copy(update={"device": device})


def _experiment(file: Path, weights: str | None) -> ExperimentSpec:
    spec = settings.experiment(file)
    if weights is None:
        return spec
    detector = replace(spec.cycle.detector, weights=weights_path(weights))
    return replace(spec, cycle=replace(spec.cycle, detector=detector))


def _drive(cycle: str, environment: settings.Settings) -> None:
    from mgral_service.app.driver import drive, this_process

    with Display(err) as show:
        record = drive(cycle, wiring.driver_ports(environment), this_process(), show)
    if record.problem is not None:
        raise MgralError(f"{record.problem.code}: {record.problem.detail}")


def _scores(title: str, results: Iterable[tuple[Selection, CycleReport]]) -> Table:
    """mAP of each cycle, on the test images where there are any."""
    from mgral_service.report.figures import scores_of

    table = Table("cycle", "chosen by", "images", "before", "after", title=title)
    for number, (selection, report) in enumerate(results, start=1):
        scores = scores_of(report)
        shown = (f"{scores[name]:.4f}" if name in scores else "-" for name in ("before", "chosen"))
        table.add_row(str(number), selection.strategy, str(len(selection.images)), *shown)
    return table


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Argument(help="images/, train.json, test.json; none: digit scenes")
    ] = None,
    to: Annotated[Path, typer.Option("--out", help="Folder for results.")] = Path("out/demo"),
    seed: int = 0,
) -> None:
    """Run an active learning round with every part, through the HTTP API; nothing stays running."""
    from mgral_service.cli.demo import run_demo

    run_demo(folder, to, seed, out, err)


# --- with a running service ---------------------------------------------------------------------


@app.command()
def select(
    cycle: str,
    budget: Annotated[int | None, typer.Option(help="Rank again for this many.")] = None,
    output: Annotated[
        Literal["table", "json", "csv", "coco"], typer.Option("--output", "-o")
    ] = "table",
) -> None:
    """The images to annotate, best first, each with its reason."""
    client = gateway()
    if output == "coco":
        query: dict[str, Any] = {"format": "coco"} | ({"budget": budget} if budget else {})
        return print_json(client.call("GET", f"/selections/{cycle}", params=query))
    selection = client.selection(cycle, budget)
    if output == "json":
        return print_json(selection)
    rows = [
        [str(image["rank"]), image["image_id"], f"{image['score']:.6g}", image["reason"]]
        for image in selection["images"]
    ]
    names = ["rank", "image_id", "score", "reason"]
    if output == "csv":
        return csv.writer(sys.stdout).writerows([names, *rows])
    table = Table(*names, title=f"chosen by {selection['strategy']}")
    for row in rows:
        table.add_row(*row)
    return out.print(table)


@app.command()
def scan(
    cycle: Annotated[str, typer.Argument(help="The cycle whose detector and agent choose.")],
    images: Annotated[
        Path,
        typer.Argument(
            help="Lines of id,URI or of URIs (file://, s3:// ...)", exists=True, dir_okay=False
        ),
    ],
    budget: Annotated[int, typer.Option(min=1, help="Images to choose.")],
    to: Annotated[Path, typer.Option("--out", help="A CSV file.")] = Path("out/scan.csv"),
    predictions: Annotated[
        str,
        typer.Option(help="Folder or URI for the detector's predictions, by cycle."),
    ] = "out/scan",
    actors: Annotated[
        int, typer.Option(min=1, help="Actors at a time, with a CPU each; another reads images.")
    ] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each actor.")] = 0.0,
) -> None:
    """Choose from a pool that lies elsewhere, with Ray Data on the cluster.

    The cycle's detector and agent are read from MGRAL_HOME. The cluster is the one that
    RAY_ADDRESS names, or one on this machine for as long as this takes.
    """
    from mgral_service.cli import scan as scanning
    from mgral_service.cluster.pool import Actors
    from mgral_service.cluster.proxies import connect
    from mgral_service.domain.records import AGENT
    from mgral_service.store.artifacts import FileArtifacts
    from mgral_service.strategies import display_name

    environment = settings.from_environment()
    uris = scanning.read_uris(images)
    folder = f"{predictions if '://' in predictions else Path(predictions).resolve()}/{cycle}"
    artifacts = FileArtifacts(environment.home / "cycles")
    device = environment.device if environment.device != "auto" else "cuda" if gpus else "cpu"
    agent = scanning.agent_of(gateway(), artifacts, cycle, device)
    if agent.winner != AGENT:
        err.print(
            f"{cycle} took the batch of {display_name(agent.winner)}; its agent chooses here: see "
            f"`mgral cycle report {cycle}`",
            highlight=False,
        )
    connect()
    result = scanning.scan(uris, agent, budget, folder, Actors(actors, 1.0, gpus))
    scanning.write(result, to)
    for refused in result.refused:
        err.print(f"refused {refused.id}: {refused.cause}", highlight=False)
    out.print(f"{len(result.images)} of {len(uris)} images: {to}", highlight=False)


@app.command()
def annotate(
    cycle: str,
    file: Annotated[Path, typer.Argument(help="COCO JSON from the annotation tool.")],
    partial: Annotated[bool, typer.Option(help="Accept an incomplete answer.")] = False,
) -> None:
    """Send the annotations of a selection; the detector is then retrained."""
    query = {"partial": "true"} if partial else {}
    print_json(
        gateway().call("POST", f"/cycles/{cycle}/annotations", json=read_json(file), params=query)
    )

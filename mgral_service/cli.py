"""The `mgral` command: parse, wire, print. Data goes to stdout, progress and errors to stderr."""

from __future__ import annotations

import csv
import sys
from dataclasses import replace
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from mgral_service import __version__, cli_data, codec, dry_run, settings, wiring
from mgral_service.client import RESTING, Refused
from mgral_service.console import Display
from mgral_service.domain.errors import (
    Conflict,
    InvalidInput,
    MgralError,
    NotFound,
    Unavailable,
)
from mgral_service.terminal import Out, Output, err, gateway, out, print_json, read_json

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Active learning for object detection: which images should be labelled next?",
)
cycles = typer.Typer(no_args_is_help=True, help="Start and follow cycles of a running service.")
app.add_typer(cycles, name="cycle")
app.add_typer(cli_data.app, name="data")

EXIT = {NotFound: 3, Conflict: 4, Refused: 5, InvalidInput: 6, Unavailable: 75}
Weights = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Initial weights: a file, or a name torchvision knows."),
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


def _weights(where: str) -> str:
    """A file as its absolute path, for processes that run elsewhere; a name as it is."""
    file = Path(where).expanduser()
    return str(file.resolve()) if file.is_file() else where


@app.command()
def version() -> None:
    """Print the version."""
    out.print(__version__)


# --- the service --------------------------------------------------------------------------------


@app.command()
def up(
    detach: Annotated[bool, typer.Option(help="Run in the background.")] = False,
) -> None:
    """Start the service here: store, Ray and gateway, on MGRAL_HOST:MGRAL_PORT."""
    from mgral_service import service

    known = settings.from_environment()
    if detach:
        log = known.home / "up.log"
        url, _ = service.up_detached(known, log)
        err.print(f"mgral answers at {url}; log in {log}; stop it with `mgral down`")
    else:
        service.up(known, err.print)


@app.command()
def down() -> None:
    """Stop the service that `mgral up` started."""
    from mgral_service import service

    known = settings.from_environment()
    err.print("stopped" if service.down(known) else f"no service runs in {known.home}")


@app.command()
def doctor(output: Out = Output.table) -> None:
    """Check store, cluster, GPU, write access and image decoding; each line says what to do."""
    from mgral_service.doctor import checks

    found = checks(settings.from_environment())
    if output is Output.json:
        print_json([codec.plain(one) for one in found])
    else:
        table = Table("check", "state", "detail")
        for one in found:
            colour = {"ok": "green", "warning": "yellow", "failed": "red"}[one.state]
            table.add_row(one.name, f"[{colour}]{one.state}[/]", one.detail)
        out.print(table)
    if any(one.state == "failed" for one in found):
        raise typer.Exit(1)


# --- without the gateway ------------------------------------------------------------------------


@app.command()
def run(
    file: Annotated[Path | None, typer.Argument(help="An experiment file (TOML).")] = None,
    cycle: Annotated[str | None, typer.Option(help="Drive this cycle of the service.")] = None,
    to: Annotated[Path, typer.Option("--out", help="Folder for results.")] = Path("out/run"),
    weights: Weights = None,
    device: Annotated[
        Literal["cpu", "cuda", "auto"] | None, typer.Option(help="Instead of MGRAL_DEVICE.")
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Print what FILE would cost and start nothing.")
    ] = False,
    step_seconds: Annotated[
        tuple[float, float] | None,
        typer.Option(
            metavar="DETECTOR PROXY",
            help="For --dry-run: seconds of a training step, instead of measuring them.",
        ),
    ] = None,
) -> None:
    """Run a whole experiment from FILE, or drive one cycle (what `POST /cycles` submits to Ray).

    Run again after an interruption, it goes on where it stopped.
    """
    if (file is None) == (cycle is None):
        raise typer.BadParameter("give either FILE or --cycle")
    if cycle is not None and (dry or weights is not None):
        raise typer.BadParameter("--dry-run and --weights go with FILE, not with --cycle")
    if step_seconds is not None and not (dry and all(0 < x < inf for x in step_seconds)):
        raise typer.BadParameter("--step-seconds are two numbers above 0, and go with --dry-run")
    known = settings.from_environment()
    if device is not None:
        known = known.model_copy(update={"device": device})
    if cycle is not None:
        from mgral_service.driver import drive, this_process

        with Display(err) as show:
            record = drive(cycle, wiring.driver_ports(known), this_process(), show)
        problem = record.problem
        if problem is not None:
            raise MgralError(f"{problem.code}: {problem.detail}")
        return
    assert file is not None
    spec = settings.experiment(file)
    if weights is not None:
        detector = replace(spec.cycle.detector, weights=_weights(weights))
        spec = replace(spec, cycle=replace(spec.cycle, detector=detector))
    if dry:
        dry_run.show(spec, known, step_seconds, out, err)
        return
    from mgral_service.experiment import run_experiment

    known = known.model_copy(update={"home": known.home.resolve()})
    with Display(err) as show:
        answers = run_experiment(spec, known, show, to)
    on_test = answers[0][1].test_after is not None
    title = f"{file}: {spec.cycle.metric} on {'test' if on_test else 'scoring'} images"
    table = Table("cycle", "chosen by", "images", "before", "after", title=title)
    for number, (selection, report) in enumerate(answers, start=1):
        before, after = (
            (report.test_before, report.test_after)
            if on_test
            else (report.scoring_before, report.scoring_after)
        )
        row = [str(number), selection.strategy, str(len(selection.images))]
        table.add_row(*row, *("-" if x is None else f"{x:.4f}" for x in (before, after)))
    out.print(table)
    for number, (_, report) in enumerate(answers, start=1):
        out.print(f"cycle {number}")
        for sentence in report.words:
            out.print(f"  {sentence}", highlight=False)
    out.print(f"selections, reports and figures: {to}")


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Argument(help="images/, train.json, test.json; none: digit scenes")
    ] = None,
    to: Annotated[Path, typer.Option("--out", help="Folder for results.")] = Path("out/demo"),
    seed: int = 0,
) -> None:
    """One MGRAL round with every real part, through the HTTP API; leaves nothing running."""
    from mgral_service.demo import run_demo

    run_demo(folder, to, seed, out, err)


# --- cycles of a running service ----------------------------------------------------------------


@cycles.command("start")
def start(
    dataset: Annotated[str | None, typer.Argument(help="A registered dataset.")] = None,
    budget: Annotated[int | None, typer.Option(help="Images to choose.")] = None,
    file: Annotated[Path | None, typer.Option(help="A CycleSpec as JSON.")] = None,
    strategy: Annotated[str | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option()] = None,
    weights: Weights = None,
    key: Annotated[str | None, typer.Option("--idempotency-key")] = None,
    wait: Annotated[bool, typer.Option(help="Follow it to its selection.")] = False,
) -> None:
    """Start a cycle; prints its id. Options override the values of --file."""
    spec: dict[str, Any] = read_json(file) if file else {}
    given = {"dataset": dataset, "budget": budget, "strategy": strategy, "seed": seed}
    spec |= {name: value for name, value in given.items() if value is not None}
    if weights is not None:
        spec["detector"] = {**spec.get("detector", {}), "weights": _weights(weights)}
    answer = gateway().start(spec, key)
    out.print(answer["id"], highlight=False)
    if wait:
        watch(answer["id"])


@cycles.command("watch")
def watch(cycle: str) -> None:
    """Follow a cycle until it rests: SELECTED, SUCCEEDED, FAILED or CANCELLED; then tell who chose
    and why.
    """
    client = gateway()
    with Display(err) as show:
        for kind, event in client.events(cycle, frozenset(RESTING)):
            show(kind, event)
    record = client.cycle(cycle)
    err.print(f"{cycle} is {record['status']}", highlight=False)
    if record["status"] in {"FAILED", "CANCELLED"}:
        if record.get("problem"):
            err.print(record["problem"]["detail"], highlight=False, markup=False)
        raise typer.Exit(1)
    for sentence in client.call("GET", f"/cycles/{cycle}/report")["words"]:
        err.print(f"  {sentence}", highlight=False, markup=False)


@cycles.command("ls")
def list_cycles(limit: int = 20, output: Out = Output.table) -> None:
    """The newest cycles."""
    page = gateway().call("GET", "/cycles", params={"page_size": limit})
    if output is Output.json:
        return print_json(page)
    table = Table("cycle", "dataset", "strategy", "budget", "status")
    for one in page["cycles"]:
        spec = one["spec"]
        table.add_row(
            one["id"], spec["dataset"], spec["strategy"], str(spec["budget"]), one["status"]
        )
    return out.print(table)


@cycles.command("show")
def show_cycle(cycle: str) -> None:
    """One cycle as JSON."""
    print_json(gateway().cycle(cycle))


@cycles.command("cancel")
def cancel(cycle: str) -> None:
    """Cancel a cycle and free what it uses."""
    err.print(f"{cycle} is {gateway().call('POST', f'/cycles/{cycle}/cancel')['status']}")


@cycles.command("resume")
def resume(cycle: str) -> None:
    """Give a cycle whose driver died a new one at once (the service does so by itself, later)."""
    err.print(f"{cycle} is {gateway().call('POST', f'/cycles/{cycle}/resume')['status']}")


@cycles.command("report")
def show_report(cycle: str) -> None:
    """A cycle's report as JSON."""
    print_json(gateway().call("GET", f"/cycles/{cycle}/report"))


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"
    coco = "coco"


@app.command()
def select(
    cycle: str,
    budget: Annotated[int | None, typer.Option(help="Rank again for this many.")] = None,
    output: Annotated[Format, typer.Option("--output", "-o")] = Format.table,
) -> None:
    """The images to annotate, best first, each with its reason."""
    client = gateway()
    if output is Format.coco:
        query: dict[str, Any] = {"format": "coco"} | ({"budget": budget} if budget else {})
        return print_json(client.call("GET", f"/selections/{cycle}", params=query))
    selection = client.selection(cycle, budget)
    if output is Format.json:
        return print_json(selection)
    rows = [
        [str(one["rank"]), one["image_id"], f"{one['score']:.6g}", one["reason"]]
        for one in selection["images"]
    ]
    names = ["rank", "image_id", "score", "reason"]
    if output is Format.csv:
        return csv.writer(sys.stdout).writerows([names, *rows])
    table = Table(*names, title=f"chosen by {selection['strategy']}")
    for row in rows:
        table.add_row(*row)
    return out.print(table)


@app.command()
def scan(
    cycle: Annotated[str, typer.Argument(help="Whose detector and agent choose.")],
    images: Annotated[
        Path,
        typer.Argument(
            help="Lines of id,URI or of URIs (file://, s3:// ...)", exists=True, dir_okay=False
        ),
    ],
    budget: Annotated[int, typer.Option(min=1)],
    to: Annotated[Path, typer.Option("--out", help="A CSV file.")] = Path("out/scan.csv"),
    seen: Annotated[
        str,
        typer.Option(help="Folder or URI; what the cycle's detector sees is kept below, by cycle."),
    ] = "out/scan",
    actors: Annotated[
        int, typer.Option(min=1, help="At work at the same time, a CPU each; one more reads.")
    ] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="Of each.")] = 0.0,
) -> None:
    """Choose from a pool that lies elsewhere, with Ray Data on the cluster.

    The cycle's detector and agent are read from MGRAL_HOME. The cluster is the one that
    RAY_ADDRESS names, or one on this machine for as long as this takes.
    """
    from mgral_service import scan as scanning
    from mgral_service.cluster.pool import Actors
    from mgral_service.cluster.proxies import connect
    from mgral_service.domain.records import AGENT
    from mgral_service.store.artifacts import FileArtifacts
    from mgral_service.strategies.reasons import spoken

    known = settings.from_environment()
    listed = scanning.read_uris(images)
    folder = f"{seen if '://' in seen else Path(seen).resolve()}/{cycle}"  # one detector's sights
    kept = FileArtifacts(known.home / "cycles")
    device = known.device if known.device != "auto" else "cuda" if gpus else "cpu"
    trained = scanning.of_cycle(gateway(), kept, cycle, device)
    if trained.winner != AGENT:
        err.print(
            f"{cycle} itself took the batch of {spoken(trained.winner)}, not of its agent, which "
            f"chooses here: see `mgral cycle report {cycle}`",
            highlight=False,
        )
    connect()
    done = scanning.scan(listed, trained, budget, folder, Actors(actors, 1.0, gpus))
    scanning.write(done, to)
    for one in done.refused:
        err.print(f"refused {one.id}: {one.cause}", highlight=False)
    out.print(f"{len(done.images)} of {len(listed)} images: {to}", highlight=False)


@app.command()
def annotate(
    cycle: str,
    file: Annotated[Path, typer.Argument(help="COCO JSON from the annotation tool.")],
    partial: Annotated[bool, typer.Option(help="Accept an incomplete answer.")] = False,
) -> None:
    """Send the annotations of a selection back; the detector is then retrained."""
    query = {"partial": "true"} if partial else {}
    print_json(
        gateway().call("POST", f"/cycles/{cycle}/annotations", json=read_json(file), params=query)
    )

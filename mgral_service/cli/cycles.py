"""`mgral cycle ...`: start and follow cycles of a running service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from mgral_service.cli.client import RESTING
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

app = typer.Typer(no_args_is_help=True, help="Start and follow cycles of a running service.")


@app.command("start")
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
    """Start a cycle and print its id. Options override the values of --file."""
    spec: dict[str, Any] = read_json(file) if file else {}
    given = {"dataset": dataset, "budget": budget, "strategy": strategy, "seed": seed}
    spec |= {name: value for name, value in given.items() if value is not None}
    if weights is not None:
        spec["detector"] = {**spec.get("detector", {}), "weights": weights_path(weights)}
    cycle = gateway().start(spec, key)["id"]
    out.print(cycle, highlight=False)
    if wait:
        watch(cycle)


@app.command("watch")
def watch(cycle: str) -> None:
    """Follow a cycle until it is SELECTED, SUCCEEDED, FAILED or CANCELLED; then print who chose and
    why.
    """
    client = gateway()
    with Display(err) as show:
        for kind, event in client.events(cycle, RESTING):
            show(kind, event)
    record = client.cycle(cycle)
    err.print(f"{cycle} is {record['status']}", highlight=False)
    if record["status"] in {"FAILED", "CANCELLED"}:
        if record.get("problem"):
            err.print(record["problem"]["detail"], highlight=False, markup=False)
        raise typer.Exit(1)
    print_notes(err, client.report(cycle))


@app.command("ls")
def list_cycles(limit: int = 20, output: Out = "table") -> None:
    """The newest cycles."""
    page = gateway().call("GET", "/cycles", params={"page_size": limit})
    if output == "json":
        return print_json(page)
    table = Table("cycle", "dataset", "strategy", "budget", "status")
    for cycle in page["cycles"]:
        spec = cycle["spec"]
        names = (cycle["id"], spec["dataset"], spec["strategy"], str(spec["budget"]))
        table.add_row(*names, cycle["status"])
    return out.print(table)


@app.command("show")
def show_cycle(cycle: str) -> None:
    """One cycle as JSON."""
    print_json(gateway().cycle(cycle))


@app.command("cancel")
def cancel(cycle: str) -> None:
    """Cancel a cycle and free what it uses."""
    err.print(f"{cycle} is {gateway().call('POST', f'/cycles/{cycle}/cancel')['status']}")


@app.command("resume")
def resume(cycle: str) -> None:
    """Give a cycle whose driver died a new driver now; the service does so later by itself."""
    err.print(f"{cycle} is {gateway().call('POST', f'/cycles/{cycle}/resume')['status']}")


@app.command("report")
def show_report(cycle: str) -> None:
    """A cycle's report as JSON."""
    print_json(gateway().report(cycle))

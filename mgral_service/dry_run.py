"""What `mgral run FILE --dry-run` says."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from mgral_service import plan, wiring
from mgral_service.console import shown_bytes, shown_hours
from mgral_service.domain.specs import ExperimentSpec
from mgral_service.plan import Plan, StepSeconds, Stock
from mgral_service.settings import Settings


def show(
    spec: ExperimentSpec,
    known: Settings,
    given: tuple[float, float] | None,
    out: Console,
    err: Console,
) -> None:
    """Print the plan; without `given` seconds a step, measure them first."""
    wiring.check(spec.cycle)
    with_table = "table" in wiring.strategy(spec.cycle.strategy).needs
    stock = plan.stock_of(spec.dataset)
    classes = stock.classes or plan.CLASSES[spec.dataset.format]
    if given is not None:
        seconds = plan.StepSeconds(*given, ("given by --step-seconds",))
    else:
        err.print("timing training steps; --step-seconds saves that ...")
        seconds = plan.measure(spec.cycle, classes, wiring.device_of(known), with_table)
    weights = plan.weights_checked(spec.cycle.detector, classes)
    planned = plan.plan(spec, seconds, stock, with_table)
    images = plan.images_kept(planned.image_bytes)
    _print(out, spec, stock, weights, images, seconds, planned)


def _print(
    console: Console,
    spec: ExperimentSpec,
    stock: Stock,
    weights: str,
    images: str,
    seconds: StepSeconds,
    planned: Plan,
) -> None:
    """Facts, a row a cycle, sums."""
    detector, actors = spec.cycle.detector, spec.cycle.table.actors
    facts = Table.grid(padding=(0, 2))
    facts.add_row("experiment", f"{spec.cycle.strategy} on {spec.dataset.name}, {detector.name}")
    facts.add_row("data", "\n".join(stock.words))
    facts.add_row("weights", weights)
    facts.add_row("step", "\n".join(seconds.words))
    costs = [("detector", detector.steps, seconds.detector, planned.detector_hours)]
    if planned.cycles[0].proxies:
        costs.append(("proxy", planned.proxy_steps, seconds.proxy, planned.proxy_hours))
    for name, steps, each, hours in costs:
        words = f"{steps:,} steps of {detector.batch} images x {each:.3g} s = {shown_hours(hours)}"
        facts.add_row(f"one {name}", words)
    console.print(facts, highlight=False, markup=False)

    names = ["cycle", "labelled before", "budget", "labelled after", "detectors", "proxies"]
    rows = Table(*names, "device", f"wall, {actors} at once")
    for one in planned.cycles:
        after = one.labelled + one.budget
        counts = (one.number, one.labelled, one.budget, after, one.fits, one.proxies)
        times = (shown_hours(one.device_hours), shown_hours(one.wall_hours))
        rows.add_row(*(f"{count:,}" for count in counts), *times)
    console.print(rows)

    sums = Table.grid(padding=(0, 2))
    bought = f"{planned.annotations:,} images, and {spec.initial:,} before the first cycle"
    sums.add_row("annotations", bought)
    if planned.scoring is not None:
        apart = f"{planned.scoring:,} of those {spec.initial:,} score proxies and train nothing"
        sums.add_row("scoring", apart)
    sums.add_row("trainings", f"{planned.trainings:,}")
    sums.add_row("device", f"{shown_hours(planned.device_hours)} of training alone")
    sums.add_row("wall", f"{shown_hours(planned.wall_hours)} with {actors} proxies at once")
    sums.add_row("table", f"{shown_bytes(planned.table_bytes)} in the store")
    sums.add_row("images", f"{images}, at {detector.size} x {detector.size} pixels")
    sums.add_row("agent", f"{planned.iterations:,} iterations a cycle")
    console.print(sums, highlight=False)

"""`mgral estimate FILE`: the cost of an experiment as tables."""

from __future__ import annotations

from itertools import pairwise

from rich.console import Console
from rich.filesize import decimal
from rich.table import Table

from mgral_service.app import estimate, wiring
from mgral_service.app.estimate import Estimate, StepSeconds
from mgral_service.app.settings import Settings
from mgral_service.cli.progress import shown_hours
from mgral_service.datasets.formats import format_of
from mgral_service.datasets.loading import fit_in_memory
from mgral_service.domain.specs import ExperimentSpec


def show(
    spec: ExperimentSpec,
    settings: Settings,
    step_seconds: tuple[float, float] | None,
    out: Console,
    err: Console,
) -> None:
    """Print the estimate. step_seconds: of a detector and a proxy; None: measure them."""
    wiring.check(spec.cycle)
    with_table = "table" in wiring.strategy(spec.cycle.strategy).needs
    counts = estimate.count_dataset(spec.dataset)
    classes = counts.classes or format_of(spec.dataset).classes
    if step_seconds is not None:
        seconds = StepSeconds(*step_seconds, ("given by --step-seconds",))
    else:
        err.print("timing training steps (--step-seconds skips this) ...")
        device = wiring.device_of(settings)
        seconds = estimate.measure(spec.cycle, classes, device, with_table)
    costs, detector = estimate.estimate(spec, seconds, counts, with_table), spec.cycle.detector
    facts = Table.grid(padding=(0, 2))
    facts.add_row("experiment", f"{spec.cycle.strategy} on {spec.dataset.name}, {detector.name}")
    facts.add_row("data", "\n".join(counts.notes))
    facts.add_row("weights", estimate.check_weights(detector, classes))
    facts.add_row("step", "\n".join(seconds.notes))
    trainings = [("a detector", detector.steps, seconds.detector, costs.detector_hours)]
    if costs.proxies:
        trainings.append(("a proxy", costs.proxy_steps, seconds.proxy, costs.proxy_hours))
    for name, steps, step_s, hours in trainings:
        product = f"{steps:,} steps of {detector.batch} images x {step_s:.3g} s"
        facts.add_row(name, f"{product} = {shown_hours(hours)}")
    out.print(facts, highlight=False, markup=False)
    out.print(_cycles(spec, costs))
    out.print(_sums(spec, costs), highlight=False)


def image_storage(count: int | None) -> str:
    """How many bytes of decoded images there will be, and where; None: their number is unknown."""
    if count is None:
        return "unknown"
    where = "memory" if fit_in_memory(count) else "a file under MGRAL_HOME/images"
    return f"{decimal(count)} in {where}"


def _cycles(spec: ExperimentSpec, costs: Estimate) -> Table:
    names = ("cycle", "labelled before", "budget", "labelled after", "detectors", "proxies")
    table = Table(*names, "device", f"wall, {spec.cycle.table.actors} at once")
    for number, (before, after) in enumerate(pairwise(costs.labelled), start=1):
        counts = (number, before, after - before, after, costs.detectors, costs.proxies)
        times = (shown_hours(costs.device_hours), shown_hours(costs.wall_hours))
        table.add_row(*(f"{count:,}" for count in counts), *times)
    return table


def _sums(spec: ExperimentSpec, costs: Estimate) -> Table:
    size, actors, initial = spec.cycle.detector.size, spec.cycle.table.actors, spec.initial
    trainings = costs.cycles * (costs.detectors + costs.proxies)
    sums = Table.grid(padding=(0, 2))
    bought = costs.labelled[-1] - initial
    sums.add_row("annotations", f"{bought:,} images, and {initial:,} before the first cycle")
    if costs.scoring:
        apart = f"{costs.scoring:,} of those {initial:,} score proxies and train nothing"
        sums.add_row("scoring", apart)
    sums.add_row("trainings", f"{trainings:,}")
    sums.add_row("device", f"{shown_hours(costs.cycles * costs.device_hours)} of training alone")
    wall = shown_hours(costs.cycles * costs.wall_hours)
    sums.add_row("wall", f"{wall} with {actors} proxies at once")
    sums.add_row("table", f"{decimal(costs.table_bytes)} in the store")
    sums.add_row("images", f"{image_storage(costs.image_bytes)}, at {size} x {size} pixels")
    if costs.agents:
        iterations = f"{spec.cycle.agent.iterations:,} iterations each, not in the hours"
        sums.add_row("agents", f"{costs.agents} a cycle, {iterations}")
    return sums

"""What cheaper proxies cost, and whether they rank batches as the full ones do.

Full proxies: of batches without labels, ISD from the initial weights, every view anew, as a table
trains it that sets nothing ("isd"); of batches with their labels, the same without ISD and with
more steps ("labels"). Cheaper: a start from the task detector and a quarter of the steps ("warm");
kept features, so that only the head trains, with CSD instead of ISD ("head"); that broken off and
its curve continued ("stopped"); both of the first ("head_warm"). The mark to reach: the full
proxy's own agreement from seed to seed, less .05. `--quick`: 3 batches, 2 steps.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness import Figures, Options, main
from benchmarks.ranking import between, within
from benchmarks.trainings import Grid, Setting, grids, scores, seconds
from mgral_service.domain.specs import DetectorSpec, TableSpec

WORLDS = {"vehicles": "vehicles_openimages", "digits": "digits"}
BATCHES, SEEDS = 24, (0, 1)
STEPS = {"isd": 80, "labels": 150}
WARM_RATE = 0.3  # a fitted detector is shaken up by more


def measure(options: Options) -> Figures:
    batches = 3 if options.quick else BATCHES
    detector = DetectorSpec(steps=2) if options.quick else DetectorSpec()
    wanted = {
        (short, kind, name): Grid(
            Setting(world, detector, table, with_labels=kind == "labels"), batches, SEEDS
        )
        for short, world in WORLDS.items()
        for kind, steps in STEPS.items()
        for name, table in tables(kind, 2 if options.quick else steps).items()
    }
    found = grids(wanted, options.device)
    figures: dict[str, float] = {}
    for (short, kind, name), some in found.items():
        key, reference = f"{short}_{kind}_{name}", found[short, kind, "full"]
        figures |= within(scores(some)).figures(f"{key}_own_agreement")
        figures[f"{key}_per_hour"] = 3600 / seconds(some)
        if name != "full":
            figures |= between(scores(reference), scores(some)).figures(f"{key}_agreement")
            figures[f"{key}_times_as_many"] = seconds(reference) / seconds(some)
    return figures


def tables(kind: str, steps: int) -> dict[str, TableSpec]:
    """By name, the full one first. A proxy whose batch has labels uses no objective."""
    full = TableSpec(steps=steps)
    if kind == "labels":
        full = replace(full, objective="csd", checkpoints=3)
    head = replace(full, objective="csd", views=4, checkpoints=4)
    return {
        "full": full,
        "warm": warm(full),
        "head": head,
        "stopped": replace(head, checkpoints=1, stop=0.4),
        "head_warm": warm(head),
    }


def warm(table: TableSpec) -> TableSpec:
    """From the task detector, gently, for a quarter of the steps."""
    return replace(table, start="detector", rate=WARM_RATE, steps=max(2, table.steps // 4))


if __name__ == "__main__":
    main("proxy_fidelity", "cheaper proxies against the full one: 40 labelled + 40", measure)

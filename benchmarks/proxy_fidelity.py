"""What cheaper proxies cost, and whether they rank batches as the full one does.

The full proxy: ISD, the task detector's own steps, from the initial weights, every view anew. Each
cheaper one changes one thing, the last ones all of them. The mark to reach: the full proxy's own
agreement from seed to seed, less .05. `--quick`: 3 batches, a thirtieth of the steps.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness import Figures, Options, main
from benchmarks.ranking import between, within
from benchmarks.trainings import Grid, Setting, grids, scores, seconds
from mgral_service.domain.specs import DetectorSpec, TableSpec

WORLDS = {"vehicles": "vehicles_openimages", "digits": "digits"}
BATCHES, SEEDS, STEPS = 24, (0, 1), 150


def measure(options: Options) -> Figures:
    batches = 3 if options.quick else BATCHES
    steps = STEPS // 30 if options.quick else STEPS
    detector = DetectorSpec(steps=steps)
    full = TableSpec(steps=steps, objective="isd")
    tables = {"full": full, **cheaper(full)}
    wanted = {
        f"{short}_{name}": Grid(Setting(world, detector, table), batches, SEEDS)
        for short, world in WORLDS.items()
        for name, table in tables.items()
    }
    found = grids(wanted, options.device)
    figures: dict[str, float] = {}
    for key, some in found.items():
        reference = found[f"{key.partition('_')[0]}_full"]
        figures |= within(scores(some, "score")).figures(f"{key}_own_agreement")
        figures[f"{key}_per_hour"] = 3600 / seconds(some)
        if some is not reference:
            agreement = between(scores(reference, "score"), scores(some, "score"))
            figures |= agreement.figures(f"{key}_agreement")
            figures[f"{key}_times_as_many"] = seconds(reference) / seconds(some)
    return figures


def cheaper(full: TableSpec) -> dict[str, TableSpec]:
    """By name, one change at a time and then together."""
    few = max(2, full.steps // 4)
    head = replace(full, objective="csd", views=4)
    return {
        "warm": replace(full, start="detector", steps=few),
        "stopped": replace(full, stop=0.4),
        "head": head,
        "head_stopped": replace(head, stop=0.4),
        "head_warm": replace(head, start="detector", steps=few),
    }


if __name__ == "__main__":
    main("proxy_fidelity", "cheaper proxies against the full one: 40 labelled + 40", measure)

"""What cheaper proxies cost, and whether they rank batches as the full one does.

The full proxy: ISD from the initial weights, every view anew, as a table trains it that sets
nothing. Cheaper: a start from the task detector and a quarter of the steps ("warm"); kept features,
so that only the head trains, with CSD ("head"); that broken off and its curve continued
("head_stopped"); both of the first ("head_warm"), and with a dense teacher instead of CSD. The mark
to reach: the full proxy's own agreement from seed to seed, less .05. `--quick`: 3 batches, 2 steps.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness import Figures, Options, main
from benchmarks.ranking import between, within
from benchmarks.trainings import Grid, Setting, grids, scores, seconds
from mgral_service.domain.specs import DetectorSpec, TableSpec

WORLDS = {"vehicles": "vehicles_openimages", "digits": "digits"}
BATCHES, SEEDS, STEPS = 24, (0, 1), 80
WARM_RATE = 0.3  # a fitted detector is shaken up by more


def measure(options: Options) -> Figures:
    batches = 3 if options.quick else BATCHES
    steps = 2 if options.quick else STEPS
    detector = DetectorSpec(steps=2) if options.quick else DetectorSpec()
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
    head = replace(full, objective="csd", views=4, checkpoints=4)
    return {
        "warm": warm(full),
        "head": head,
        "head_stopped": replace(head, checkpoints=1, stop=0.4),
        "head_warm": warm(head),
        "head_warm_teacher": warm(replace(head, objective="dense_teacher")),
    }


def warm(table: TableSpec) -> TableSpec:
    """From the task detector, gently, for a quarter of the steps."""
    return replace(table, start="detector", rate=WARM_RATE, steps=max(2, table.steps // 4))


if __name__ == "__main__":
    main("proxy_fidelity", "cheaper proxies against the full one: 40 labelled + 40", measure)

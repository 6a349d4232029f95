"""What cheaper proxies cost, and whether they rank batches as the full ones do.

Full proxies: of batches without labels, ISD from the initial weights, every view anew, as a table
trains it that sets nothing ("isd"); of batches with their labels, the same without ISD and with
more steps ("labels"). Cheaper: a start from the task detector and a quarter of the steps ("warm");
kept features, so that only the head trains, with CSD instead of ISD ("head"); that broken off and
its curve continued ("stopped"); the head alone, from the task detector, for two fifths of the steps
("head_warm"). The mark to reach: the full proxy's own agreement from seed to seed, less .05; in
AP50, and in AP ("_ap"). "head_warm" was chosen on the vehicles' batches, so it is measured on as
many others ("_again"). Time is that of a proxy whose images' features are kept, as most are in a
large table; `_first` is the median of these trainings, in which many are seen for the first time.
`--quick`: 3 batches, 2 steps.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness import Figures, Options, main
from benchmarks.ranking import between, within
from benchmarks.trainings import Grid, Job, Setting, grids, one_thread, scores, seconds, train
from mgral_service.domain.specs import DetectorSpec, TableSpec

WORLDS = {"vehicles": "vehicles_openimages", "digits": "digits"}
BATCHES, SEEDS = 24, (0, 1)
STEPS = {"isd": 80, "labels": 150}
WARM_RATE = 0.3  # a fitted detector is shaken up by more


def measure(options: Options) -> Figures:
    batches = 3 if options.quick else BATCHES
    detector = DetectorSpec(steps=2) if options.quick else DetectorSpec()
    wanted = {
        (f"{short}_{kind}", name): Grid(
            Setting(world, detector, table, with_labels=kind == "labels"), batches, SEEDS
        )
        for short, world in WORLDS.items()
        for kind, steps in STEPS.items()
        for name, table in tables(kind, 2 if options.quick else steps).items()
    }
    chosen_on = "vehicles_labels"
    wanted |= {
        (f"{chosen_on}_again", name): replace(wanted[chosen_on, name], first=batches)
        for name in ("full", "head_warm")
    }
    found = grids(wanted, options.device)
    figures: dict[str, float] = {}
    for (where, name), some in found.items():
        key, reference = f"{where}_{name}", found[where, "full"]
        for metric, value in (("", "score"), ("_ap", "ap_mean")):
            own = within(scores(some, value))
            figures |= own.figures(f"{key}{metric}_own_agreement")
            if name != "full":
                agreed = between(scores(reference, value), scores(some, value))
                figures |= agreed.figures(f"{key}{metric}_agreement")
        figures[f"{key}_per_hour_first"] = 3600 / seconds(some)
    took = {
        key: steady(one.setting, options.device) for key, one in wanted.items() if one.first == 0
    }
    for (where, name), one in took.items():
        figures[f"{where}_{name}_per_hour"] = 3600 / one
        figures[f"{where}_{name}_times_as_many"] = took[where, "full"] / one
    return figures


def steady(setting: Setting, device: str) -> float:
    """Seconds of a proxy that meets no image for the first time."""
    one_thread()
    train(Job(setting, 0, 0), device)
    return train(Job(setting, 0, 0), device).seconds


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
        "head_warm": short(head),
    }


def short(table: TableSpec) -> TableSpec:
    """From the task detector, gently, for two fifths of the steps, and scored once."""
    return replace(warm(table), steps=max(2, 2 * table.steps // 5), checkpoints=1)


def warm(table: TableSpec) -> TableSpec:
    """From the task detector, gently, for a quarter of the steps."""
    return replace(table, start="detector", rate=WARM_RATE, steps=max(2, table.steps // 4))


if __name__ == "__main__":
    main("proxy_fidelity", "cheaper proxies against the full one: 40 labelled + 40", measure)

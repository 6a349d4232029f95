"""What cheaper proxies cost, and whether they rank batches as the full ones do.

Batches train without their labels ("isd") or with them ("labels"). Full proxies: from the initial
weights, on images, by ISD where the batch has no labels. Cheaper: from the task detector for a
quarter of the steps ("warm"); the head alone on stored features, by CSD in place of ISD ("head");
the head from the task detector for two fifths of the steps ("head_warm", the default of a table).
The mark: the full proxy's own agreement from seed to seed, less .05, in AP50 and in AP ("_ap").
"head_warm" was chosen on the vehicles' batches, so it is measured on as many others ("_again").

Time is that of a proxy whose images' features are stored, as most are in a large table; `_first` is
the median of these trainings, in which many are not. `--quick`: 3 batches, 2 steps.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.lib.harness import Figures, Options, main
from benchmarks.lib.ranking import between, within
from benchmarks.lib.trainings import (
    PROXIES,
    Grid,
    Job,
    Setting,
    grids,
    median_duration_s,
    one_thread,
    scores,
    train,
)
from mgral_service.domain.specs import DetectorSpec, TableSpec

WORLDS = {"vehicles": "vehicles_openimages", "digits": "digits"}
BATCHES, SEEDS = 24, (0, 1)
STEPS = {"isd": 80, "labels": 150}
SHARES = {"full": 1.0, "warm": 0.25, "head": 1.0, "head_warm": 0.4}  # of the steps
CHOSEN_ON = "vehicles_labels"


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
    wanted |= {
        (f"{CHOSEN_ON}_again", name): replace(wanted[CHOSEN_ON, name], first=batches)
        for name in ("full", "head_warm")
    }
    trained = grids(wanted, options.device)
    figures: dict[str, float] = {}
    for (where, name), outcomes in trained.items():
        key = f"{where}_{name}"
        for suffix, metric in (("", "ap50"), ("_ap", "ap")):
            measured = scores(outcomes, metric)
            figures |= within(measured).figures(f"{key}{suffix}_own_agreement")
            if name != "full":
                reference = scores(trained[where, "full"], metric)
                figures |= between(reference, measured).figures(f"{key}{suffix}_agreement")
        figures[f"{key}_per_hour_first"] = 3600 / median_duration_s(outcomes)
    durations = {
        key: steady_s(grid.setting, options.device)
        for key, grid in wanted.items()
        if grid.first == 0
    }
    for (where, name), duration_s in durations.items():
        figures[f"{where}_{name}_per_hour"] = 3600 / duration_s
        figures[f"{where}_{name}_times_as_many"] = durations[where, "full"] / duration_s
    return figures


def steady_s(setting: Setting, device: str) -> float:
    """Seconds of a proxy whose images' features are all stored."""
    one_thread()
    train(Job(setting, 0, 0), device)
    return train(Job(setting, 0, 0), device).duration_s


def tables(kind: str, steps: int) -> dict[str, TableSpec]:
    """By name, the full one first. A batch with labels uses no objective."""
    return {
        name: TableSpec(
            steps=max(2, int(share * steps)),
            objective="isd" if kind == "isd" and name in ("full", "warm") else "csd",
            advanced=PROXIES[name],
        )
        for name, share in SHARES.items()
    }


if __name__ == "__main__":
    main("proxy_fidelity", "cheaper proxies against the full one: 40 labelled + 40", measure)

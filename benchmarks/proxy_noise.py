"""How much of a proxy's score is its batch, and how much its seed.

Each batch trains with several seeds: with its labels ("full", "head", "head_warm": see
benchmarks/lib/trainings.py) or without ("isd", "head_csd"). "_x4": a record that is the mean of
four trainings (`table.advanced.repeats`). `--quick`: 3 batches, 2 steps.
"""

from __future__ import annotations

import numpy as np

from benchmarks.lib.harness import Figures, Options, main
from benchmarks.lib.ranking import records_to_rank, spreads, within
from benchmarks.lib.trainings import (
    PROXIES,
    Grid,
    Outcome,
    Setting,
    grids,
    median_duration_s,
    scores,
)
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.specs import DetectorSpec, TableSpec

WORLD = "vehicles_openimages"
BATCHES, SEEDS, STEPS = 24, (0, 1), 150
MEANS = {"head": 4, "head_warm": 8}  # most trainings of a record that is their mean
METRICS = ("ap50", "ap")


def measure(options: Options) -> Figures:
    steps = 2 if options.quick else STEPS
    batches = 3 if options.quick else BATCHES
    detector = DetectorSpec(steps=2) if options.quick else DetectorSpec()
    unlabelled, quarter = max(2, steps * 8 // 15), max(2, steps // 4)
    tables = {
        "full": TableSpec(steps=steps, objective="csd", advanced=PROXIES["full"]),
        "head": TableSpec(steps=steps, objective="csd", advanced=PROXIES["head"]),
        "head_warm": TableSpec(steps=quarter, objective="csd", advanced=PROXIES["head_warm"]),
        "isd": TableSpec(steps=unlabelled, objective="isd", advanced=PROXIES["full"]),
        "head_csd": TableSpec(steps=unlabelled, objective="csd", advanced=PROXIES["head"]),
    }
    wanted = {
        name: Grid(
            Setting(WORLD, detector, table, with_labels=name not in ("isd", "head_csd")),
            batches,
            seeds_of(name),
        )
        for name, table in tables.items()
    }
    figures: dict[str, float] = {}
    for name, outcomes in grids(wanted, options.device).items():
        duration_s = median_duration_s(outcomes)
        figures[f"{name}_seconds"] = duration_s
        for metric in METRICS:
            figures |= described(f"{name}_{metric}", scores(outcomes, metric)[:, : len(SEEDS)])
        figures |= means(name, outcomes, duration_s)
    return figures


def seeds_of(name: str) -> tuple[int, ...]:
    """SEEDS, or those of two means over MEANS trainings each."""
    if name not in MEANS:
        return SEEDS
    return tuple(start + number for start in (0, 10) for number in range(MEANS[name]))


def described(name: str, measured: FloatArray) -> dict[str, float]:
    """Spreads, correlation from seed to seed and records needed, of scores [batches, 2]."""
    noise, spread = spreads(measured)
    return {
        f"{name}_seed_spread": noise,
        f"{name}_batch_spread": spread,
        **within(measured, ranks=False).figures(f"{name}_correlation"),
        f"{name}_records": records_to_rank(noise, spread),
    }


def means(name: str, outcomes: list[list[Outcome]], duration_s: float) -> dict[str, float]:
    """Of records that are the mean over 2, 4 ... up to MEANS trainings, against as many others."""
    figures: dict[str, float] = {}
    most = MEANS.get(name, 0)
    count = 2
    while count <= most:
        for metric in METRICS:
            measured = scores(outcomes, metric)
            first, second = measured[:, :count], measured[:, most : most + count]
            pair = np.stack([first.mean(1), second.mean(1)], axis=1)
            figures |= described(f"{name}_x{count}_{metric}", pair)
        figures[f"{name}_x{count}_seconds"] = count * duration_s
        count *= 2
    return figures


if __name__ == "__main__":
    main("proxy_noise", "seed noise of proxies on vehicles, 40 labelled + 40, 160 px", measure)

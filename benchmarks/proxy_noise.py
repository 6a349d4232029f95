"""How much of a proxy's score is its batch, and how much its seed.

Each batch trains with several seeds. Settings: the batch with its labels, or without; one seed
common to all batches, or one each; averaged weights or the last ones; the last score, or the mean
over points of the last fifth; every view anew, or kept features.
`--quick`: 3 batches, 2 steps.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.harness import Figures, Options, main
from benchmarks.proxy_fidelity import warm
from benchmarks.ranking import records_to_rank, spreads, within
from benchmarks.trainings import Grid, Outcome, Setting, grids, scores, seconds
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.specs import DetectorSpec, TableSpec

WORLD = "vehicles_openimages"
BATCHES, SEEDS, STEPS = 24, (0, 1), 150
MEANS = {"kept": 4, "kept_warm": 8}  # trainings of a proxy whose score is their mean
METRICS = ("ap50", "ap", "ap50_mean", "ap_mean")


def measure(options: Options) -> Figures:
    steps = 2 if options.quick else STEPS
    batches = 3 if options.quick else BATCHES
    detector = DetectorSpec(steps=2) if options.quick else DetectorSpec()
    anew = TableSpec(steps=steps, objective="csd", checkpoints=3)
    kept = replace(anew, views=4, checkpoints=4)
    short = max(2, steps * 8 // 15)  # of a table that sets nothing
    wanted = {
        name: Grid(Setting(WORLD, detector, table, with_labels=with_labels), batches, seeds)
        for name, table, with_labels, seeds in (
            ("anew", anew, True, SEEDS),
            ("kept", kept, True, seeds_of("kept")),
            ("kept_last", replace(kept, average=False), True, SEEDS),
            ("isd", TableSpec(steps=short), False, SEEDS),
            ("kept_csd", replace(kept, steps=short), False, SEEDS),
            ("kept_warm", warm(kept), True, seeds_of("kept_warm")),
        )
    }
    figures: dict[str, float] = {}
    for name, found in grids(wanted, options.device).items():
        figures |= told(name, found)
        if name in MEANS:
            figures |= own_seeds(name, found)
            figures |= mean_of_seeds(name, found)
    return figures


def told(name: str, found: list[list[Outcome]]) -> dict[str, float]:
    """Spreads, seed-to-seed correlation and records needed, for each metric."""
    figures = {f"{name}_seconds": seconds(found)}
    for metric in METRICS:
        figures |= described(f"{name}_{metric}", scores(found, metric)[:, : len(SEEDS)])
    return figures


def described(name: str, some: FloatArray) -> dict[str, float]:
    noise, spread = spreads(some)
    agreement = within(some, ranks=False)
    return {
        f"{name}_seed_spread": noise,
        f"{name}_batch_spread": spread,
        **agreement.figures(f"{name}_correlation"),
        f"{name}_records": records_to_rank(noise, spread),
    }


def seeds_of(name: str) -> tuple[int, ...]:
    """Of two means over MEANS trainings each."""
    return tuple(tens + one for tens in (0, 10) for one in range(MEANS[name]))


def own_seeds(name: str, found: list[list[Outcome]]) -> dict[str, float]:
    """The same without common random numbers: no two trainings share a seed."""
    some = scores(found, "ap50")
    rows, seeds = np.arange(len(some)), some.shape[1]
    turned = np.stack([some[rows, (rows + at) % seeds] for at in (0, seeds // 2)], axis=1)
    return described(f"{name}_own_seeds_ap50", turned)


def mean_of_seeds(name: str, found: list[list[Outcome]]) -> dict[str, float]:
    """A record that is the mean over 2, 4 ... up to MEANS trainings, against as many others."""
    figures: dict[str, float] = {}
    half, each = MEANS[name], seconds(found)
    many = 2
    while many <= half:
        for metric in METRICS:
            some = scores(found, metric)
            first, second = some[:, :many], some[:, half : half + many]
            pair = np.stack([first.mean(1), second.mean(1)], axis=1)
            figures |= described(f"{name}_x{many}_{metric}", pair)
        figures[f"{name}_x{many}_seconds"] = many * each
        many *= 2
    return figures


if __name__ == "__main__":
    main("proxy_noise", "seed noise of proxies on vehicles, 40 labelled + 40, 160 px", measure)

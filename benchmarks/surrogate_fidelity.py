"""Does a proxy that sees a batch without labels rank batches as their labels will?

The truth: the mean of four short trainings from the task detector with the batch's labels, the
steadiest measurement in `proxy_noise`. Against it: each objective on the same batches without
labels, for two numbers of labelled images (and so two strengths of the detector that teaches). Of
so many intervals one may lie above zero by chance: such a setting is tried again on as many other
batches ("_again"). `--quick`: 3 batches, 2 steps.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from benchmarks.harness import Figures, Options, main
from benchmarks.proxy_fidelity import warm
from benchmarks.ranking import between, within
from benchmarks.trainings import Grid, Setting, grids, scores
from mgral_service.domain.specs import DetectorSpec, TableSpec

WORLD = "vehicles_openimages"
BATCHES, SEEDS, STEPS = 24, (0, 1), 150
TRUTH_SEEDS = (0, 1, 2, 3)
LABELLED = (40, 120)


def measure(options: Options) -> Figures:
    batches = 3 if options.quick else BATCHES
    steps = 2 if options.quick else STEPS
    detector = DetectorSpec(steps=2) if options.quick else DetectorSpec()
    kept = TableSpec(steps=steps, objective="csd", checkpoints=4, views=4)
    short = replace(kept, steps=max(2, steps * 8 // 15))  # of a table that sets nothing
    teacher = replace(short, objective="dense_teacher")
    tables = {
        "labels": warm(kept),
        "isd": TableSpec(steps=short.steps),
        "csd": short,
        "dense_teacher": teacher,
        "csd_warm": warm(short),
        "dense_teacher_warm": warm(teacher),
    }
    wanted = {
        f"{name}_{labelled}": Grid(
            Setting(WORLD, detector, table, labelled, with_labels=name == "labels"),
            batches,
            TRUTH_SEEDS if name == "labels" else SEEDS,
        )
        for labelled in LABELLED
        for name, table in tables.items()
        if name != "isd" or labelled == LABELLED[0]  # the dearest
    }
    figures = told(wanted, options.device)
    above = [name for name in wanted if figures.get(f"{name}_spearman_low", 0) > 0]
    if above:
        truths = [truth_of(name) for name in above]
        other = {f"{name}_again": replace(wanted[name], first=batches) for name in above + truths}
        figures |= told(other, options.device)
    return figures


def told(wanted: Mapping[str, Grid], device: str) -> dict[str, float]:
    found = {name: scores(some, "ap50_mean") for name, some in grids(wanted, device).items()}
    figures: dict[str, float] = {}
    for key, some in found.items():
        figures[f"{key}_ap50"] = float(some.mean())
        figures |= within(some).figures(f"{key}_own_agreement")
        if key != truth_of(key):
            truth = found[truth_of(key)].mean(1, keepdims=True)
            figures |= between(truth, some.mean(1, keepdims=True)).figures(f"{key}_spearman")
    return figures


def truth_of(name: str) -> str:
    """ "labels_40" for "csd_warm_40", "labels_40_again" for "csd_40_again"."""
    return re.sub(r"^\D*", "labels_", name)


if __name__ == "__main__":
    main("surrogate_fidelity", "unlabelled batches against labelled ones on vehicles", measure)

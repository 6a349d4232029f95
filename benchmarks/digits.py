"""AP50 of the demo's detector on the digit scenes, by number of labelled images, at random and
balanced by class: how much labels are worth there, and whether it matters which.

600 scenes to draw from, 200 to test on; the mean of SEEDS draws. `--quick`: one draw, 10 steps.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.detector import threads, train_and_score
from benchmarks.harness import Figures, Options, main
from mgral_service.datasets import Ingested, ingest
from mgral_service.datasets.digits import write_digits
from mgral_service.datasets.loading import load_images
from mgral_service.domain.specs import DatasetSpec, DetectorSpec

SEEDS = (0, 1, 2)
COUNTS = (40, 80, 160)
SCENES = 600


def measure(options: Options) -> Figures:
    threads(2)
    spec = DetectorSpec()
    if options.quick:
        spec = replace(spec, steps=10)
    seeds = SEEDS[:1] if options.quick else SEEDS
    with tempfile.TemporaryDirectory() as folder:
        root = write_digits(Path(folder) / "digits", SCENES)
        data = ingest(DatasetSpec("digits", str(root), test="test.json"))
        images = load_images(root, data.images, spec.size)
    every = sorted({*data.labelled, *data.scoring})

    def ap50(train: list[str]) -> float:
        return train_and_score(spec, data, images, train, data.test, options.device)[0]

    figures: dict[str, float] = {}
    orders = [np.random.default_rng(seed).permutation(np.array(every)).tolist() for seed in seeds]
    for count in COUNTS:
        found = [ap50(order[:count]) for order in orders]
        figures[f"ap50_{count}"] = float(np.mean(found))
        figures[f"ap50_{count}_sd"] = float(np.std(found))
    figures["ap50_80_balanced"] = float(np.mean([ap50(balanced(data, o, 80)) for o in orders]))
    figures[f"ap50_{SCENES}"] = ap50(every)
    return figures


def balanced(data: Ingested, order: list[str], count: int) -> list[str]:
    """`count` images, each the first in `order` that shows the class with the fewest boxes yet."""
    truth = data.annotations.subset(order)
    shown = np.zeros((len(order), len(data.classes)))
    np.add.at(shown, (truth.image, truth.labels), 1)
    taken: list[int] = []
    have = np.zeros(len(data.classes))
    while len(taken) < count:
        for rarest in np.argsort(have, kind="stable"):
            left = [at for at in np.flatnonzero(shown[:, rarest]) if at not in taken]
            if left:
                taken.append(int(left[0]))
                have += shown[left[0]]
                break
    return [order[at] for at in taken]


if __name__ == "__main__":
    main("digits", "ssdlite on digit scenes, 160 px, 200 steps of 8, backbone frozen", measure)

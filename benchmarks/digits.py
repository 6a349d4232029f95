"""AP50 on the long-tailed digit scenes by number of labelled images, at random and balanced by
class: how much labels are worth there, and whether it matters which.

600 scenes to draw from, 200 to test on; the mean of SEEDS draws. `--quick`: one draw, 10 steps.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.lib.harness import Figures, Options, limit_threads, main
from benchmarks.lib.task_detector import train_and_score
from mgral_service.datasets import ingest
from mgral_service.datasets.digits import write_digits
from mgral_service.datasets.loading import load_images
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.specs import DatasetSpec, DetectorSpec

SEEDS = (0, 1, 2)
COUNTS = (40, 80, 160)
SCENES = 600


def measure(options: Options) -> Figures:
    limit_threads(2)
    spec = replace(DetectorSpec(), steps=10) if options.quick else DetectorSpec()
    seeds = SEEDS[:1] if options.quick else SEEDS
    with tempfile.TemporaryDirectory() as folder:
        root = write_digits(Path(folder) / "digits", SCENES)
        data = ingest(DatasetSpec("digits", str(root), test="test.json"))
        images = load_images(root, data.images.images, spec.size)
    ids = sorted(data.images.labelled)
    classes = len(data.record.classes)

    def ap50(train: list[str]) -> float:
        return train_and_score(spec, data, images, train, data.images.test, options.device)[0]

    figures: dict[str, float] = {}
    orders = [np.random.default_rng(seed).permutation(np.array(ids)).tolist() for seed in seeds]
    for count in COUNTS:
        values = [ap50(order[:count]) for order in orders]
        figures[f"ap50_{count}"] = float(np.mean(values))
        figures[f"ap50_{count}_sd"] = float(np.std(values))
    chosen = [balanced(data.annotations.subset(order), classes, 80) for order in orders]
    figures["ap50_80_balanced"] = float(np.mean([ap50(train) for train in chosen]))
    figures[f"ap50_{SCENES}"] = ap50(ids)
    return figures


def balanced(truth: Annotations, classes: int, count: int) -> list[str]:
    """`count` images, each the first of `truth` that shows the class with the fewest boxes yet."""
    objects = np.zeros((len(truth), classes))
    np.add.at(objects, (truth.image, truth.labels), 1)
    taken: list[int] = []
    boxes = np.zeros(classes)
    while len(taken) < count:
        for rarest in np.argsort(boxes, kind="stable"):
            left = [row for row in np.flatnonzero(objects[:, rarest]) if row not in taken]
            if left:
                taken.append(int(left[0]))
                boxes += objects[left[0]]
                break
    return [truth.ids[row] for row in taken]


if __name__ == "__main__":
    main("digits", "ssdlite on digit scenes, 160 px, 200 steps of 8, backbone frozen", measure)

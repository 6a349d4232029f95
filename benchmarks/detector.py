"""AP50 and training time of `ssdlite` on BCCD: 160 px, 60 training images, 150 steps of 8 images.

Three trainings: backbone frozen, the same with 100 steps, and everything trained. The 60 images are
drawn from train.json by SEED; test.json is scored once a training. `--quick`: a fifteenth of the
steps, half of the test images.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.lib.harness import Figures, Options, dataset, limit_threads, main
from benchmarks.lib.task_detector import train_and_score
from mgral_service.datasets import ingest
from mgral_service.datasets.loading import load_images
from mgral_service.domain.specs import DatasetSpec, DetectorSpec

SEED = 0
TRAINING_IMAGES = 60
SPEC = DetectorSpec(size=160, steps=150, batch=8, learning_rate=1e-2)


def measure(options: Options) -> Figures:
    limit_threads(2)  # the reference was measured on two cores
    folder = dataset("bccd")
    data = ingest(DatasetSpec("bccd", str(folder), test="test.json"))
    images = load_images(folder, data.images.images, SPEC.size)
    rng = np.random.default_rng(SEED)
    ids = np.array(sorted(data.images.labelled))
    chosen = rng.choice(ids, TRAINING_IMAGES, replace=False).tolist()
    test = data.images.test
    test = test[: len(test) // 2] if options.quick else test
    steps = max(1, SPEC.steps // 15) if options.quick else SPEC.steps
    figures: dict[str, float] = {}
    for suffix, freeze, share in (("", True, 1.0), ("_100", True, 2 / 3), ("_full", False, 1.0)):
        spec = replace(SPEC, steps=max(1, round(share * steps)), freeze_backbone=freeze)
        ap50, wall_s, cpu_s = train_and_score(
            spec, data, images, chosen, test, options.device, SEED
        )
        figures |= {
            f"ap50{suffix}": ap50,
            f"train_s{suffix}": wall_s,
            f"train_cpu_s{suffix}": cpu_s,
        }
    return figures


if __name__ == "__main__":
    main("detector", "ssdlite on BCCD, 160 px, 60 images, 150 steps of 8", measure)

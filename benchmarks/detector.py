"""AP50 and training time of `ssdlite` on BCCD: 160 px, 60 training images, 150 steps of 8 images.

Three trainings: backbone frozen, the same with 100 steps, and everything trained. The 60 are drawn
from train.json by SEED; test.json is scored once. `--quick`: a fifteenth
of the steps, half the test images.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter, process_time

import numpy as np

from benchmarks.harness import Figures, Options, dataset, main
from mgral_service.datasets import Ingested, ingest
from mgral_service.datasets.loading import ImageStore, load_images
from mgral_service.detectors.local import TaskDetector
from mgral_service.domain.records import Progress
from mgral_service.domain.specs import DatasetSpec, DetectorSpec
from mgral_service.metrics import METRICS

SEED = 0
TRAINING_IMAGES = 60
SPEC = DetectorSpec(size=160, steps=150, batch=8, learning_rate=1e-2)


def measure(options: Options) -> Figures:
    folder = dataset("bccd")
    threads(2)
    data = ingest(
        DatasetSpec("bccd", str(folder), labelled="train.json", test="test.json", seed=SEED)
    )
    images = load_images(folder, data.images, SPEC.size)
    train = sorted({*data.labelled, *data.scoring})
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(np.array(train), TRAINING_IMAGES, replace=False).tolist()
    test = data.test[: len(data.test) // 2] if options.quick else data.test
    steps = max(1, SPEC.steps // 15) if options.quick else SPEC.steps
    figures: dict[str, float] = {}
    for suffix, freeze, share in (("", True, 1.0), ("_100", True, 2 / 3), ("_full", False, 1.0)):
        spec = replace(SPEC, steps=max(1, round(share * steps)), freeze_backbone=freeze)
        ap50, wall_s, cpu_s = train_and_score(spec, data, images, chosen, test, options.device)
        figures[f"ap50{suffix}"] = ap50
        figures[f"train_s{suffix}"] = wall_s
        figures[f"train_cpu_s{suffix}"] = cpu_s
    return figures


def train_and_score(
    spec: DetectorSpec,
    data: Ingested,
    images: ImageStore,
    train: Sequence[str],
    test: Sequence[str],
    device: str,
) -> tuple[float, float, float]:
    """(AP50 on `test`, seconds of training, seconds of processor time in it)."""
    detector = TaskDetector(spec, data.classes, images, METRICS["ap50"](), SEED, device)
    wall, cpu = perf_counter(), process_time()
    detector.fit(data.annotations.subset(train), _silent)
    wall_s, cpu_s = perf_counter() - wall, process_time() - cpu
    return detector.score(data.annotations.subset(test)), wall_s, cpu_s


def threads(most: int) -> None:
    """At most `most` threads: the reference was measured on two cores."""
    import torch

    torch.set_num_threads(min(most, os.cpu_count() or 1))


def _silent(progress: Progress) -> None:
    """No bar: the clock is running."""


if __name__ == "__main__":
    main("detector", "ssdlite on BCCD, 160 px, 60 images, 150 steps of 8", measure)

"""A task detector trained and scored, with the time that training took."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter, process_time

from mgral_service.datasets import Ingested
from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors.local import TaskDetector
from mgral_service.domain.specs import DetectorSpec
from mgral_service.metrics import METRICS


def train_and_score(
    spec: DetectorSpec,
    data: Ingested,
    images: ImageStore,
    train: Sequence[str],
    test: Sequence[str],
    device: str,
    seed: int = 0,
) -> tuple[float, float, float]:
    """(AP50 on `test`, seconds of training, seconds of processor time in it)."""
    classes = data.record.classes
    detector = TaskDetector(spec, classes, images, METRICS["ap50"](), seed, device)
    wall, cpu = perf_counter(), process_time()
    detector.fit(data.annotations.subset(train), lambda progress: None)
    wall_s, cpu_s = perf_counter() - wall, process_time() - cpu
    return detector.score(data.annotations.subset(test)), wall_s, cpu_s

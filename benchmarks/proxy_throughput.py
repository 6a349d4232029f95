"""Proxies an hour: 1, 2, 4 and 8 processes sharing a device, and Ray Tune's workers.

A process or worker trains on one thread of a processor: 30 steps of ISD on images, nothing stored.
`tune_efficiency`: the proxies an hour of two workers over twice those of one; start of the actors,
imports and data included. Without Ray its figures are left out. `--quick`: 4 steps a proxy.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import repeat
from multiprocessing.synchronize import Barrier
from pathlib import Path
from time import perf_counter

from benchmarks.lib.harness import Figures, Options, dataset, limit_threads, main
from benchmarks.lib.trainings import PROXIES
from mgral_service.datasets import Ingested, ingest
from mgral_service.datasets.loading import ImageStore, load_images
from mgral_service.detectors.local import LocalProxyTrainer
from mgral_service.domain.ports import ProxyTrainer
from mgral_service.domain.records import ProxySpec
from mgral_service.domain.specs import DatasetSpec, DetectorSpec, TableSpec
from mgral_service.metrics import METRICS

SHARING = (1, 2, 4, 8)
LABELLED, BUDGET, EACH = 40, 40, 6
DETECTOR = DetectorSpec()
TABLE = TableSpec(steps=30, objective="isd", advanced=PROXIES["full"])


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """A trainer's parts: sent to a process once."""

    table: TableSpec
    data: Ingested
    images: ImageStore
    device: str

    def trainer(self) -> ProxyTrainer:
        limit_threads(1)
        return LocalProxyTrainer(
            DETECTOR,
            self.table,
            self.data.record.classes,
            self.images,
            self.data.annotations,
            METRICS["ap50"](),
            self.device,
        )

    def specs(self, count: int) -> list[ProxySpec]:
        """A quarter of the images score."""
        ids = self.data.images.labelled
        scoring, labelled = ids[: len(ids) // 4], ids[len(ids) // 4 :]
        labelled, pool = labelled[:LABELLED], labelled[LABELLED:]
        specs = []
        for index in range(count):
            batch = tuple(pool[(index + step) % len(pool)] for step in range(BUDGET))
            specs.append(
                ProxySpec(
                    index=index,
                    role="pool",
                    chosen_by="uniform",
                    fold=None,
                    batch=batch,
                    labelled=labelled,
                    unlabelled=batch,
                    scoring=scoring,
                    seed=0,
                )
            )
        return specs


def measure(options: Options) -> Figures:
    data = ingest(DatasetSpec("vehicles", str(dataset("vehicles_openimages"))))
    images = load_images(dataset("vehicles_openimages"), data.images.images, DETECTOR.size)
    table = replace(TABLE, steps=4) if options.quick else TABLE
    work = Work(table, data, images, options.device)
    each = 2 if options.quick else EACH
    figures: dict[str, float] = {}
    for sharing in SHARING:
        seconds = shared(work, sharing, max(1, each * 2 // sharing))
        figures[f"proxies_per_hour_{sharing}"] = 3600 / seconds
    if find_spec("ray") is not None:
        figures |= with_tune(work, each)
    return figures


def shared(work: Work, sharing: int, each: int) -> float:
    """Seconds a proxy, when `sharing` processes have trained `each`; their start is not counted."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(sharing, context, _begin, (work, context.Barrier(sharing))) as pool:
        durations = list(pool.map(_train, repeat(each, sharing)))
    return max(durations) / (sharing * each)


_process: tuple[Work, ProxyTrainer, Barrier] | None = None


def _begin(work: Work, together: Barrier) -> None:
    global _process
    _process = (work, work.trainer(), together)


def _train(each: int) -> float:
    assert _process is not None
    work, trainer, together = _process
    list(trainer.train(work.specs(1)))  # first calls are slower
    together.wait()
    start = perf_counter()
    list(trainer.train(work.specs(each)))
    return perf_counter() - start


def with_tune(work: Work, each: int) -> dict[str, float]:
    with cluster():
        alone = tuned(work, 1, each)
        both = tuned(work, 2, 2 * each)
    return {
        "tune_proxies_per_hour_1": 3600 * each / alone,
        "tune_proxies_per_hour_2": 3600 * 2 * each / both,
        "tune_efficiency": alone / both,
    }


def tuned(work: Work, workers: int, proxies: int) -> float:
    """Seconds from the call to the last result."""
    from mgral_service.cluster.proxies import RayProxyTrainer

    with tempfile.TemporaryDirectory() as folder:
        gpus = 0.0 if work.device == "cpu" else 1 / workers
        trainer = RayProxyTrainer(work.trainer, workers, 1.0, gpus, 0, Path(folder))
        start = perf_counter()
        results = list(trainer.train(work.specs(proxies)))
        duration_s = perf_counter() - start
    for result in results:
        if result.score is None:
            raise RuntimeError(f"a proxy failed: {result.cause}")
    return duration_s


@contextmanager
def cluster() -> Iterator[None]:
    """A local Ray, ended afterwards."""
    import ray

    from mgral_service.cluster.proxies import connect

    connect()
    try:
        yield
    finally:
        ray.shutdown()


if __name__ == "__main__":
    os.environ.setdefault("RAY_ADDRESS", "local")
    main("proxy_throughput", "proxies an hour: sharing a device, and on Ray Tune", measure)

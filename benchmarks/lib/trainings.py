"""Proxies trained for a measurement: common images and batches, each training stored.

A training that `out/benchmarks/proxies.jsonl` holds is not repeated, and benchmarks that need the
same proxies share them.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, TypeVar

import numpy as np

from benchmarks.lib.harness import OUT, dataset, limit_threads
from benchmarks.lib.stored import results
from mgral_service.datasets import Ingested, ingest
from mgral_service.datasets.digits import write_digits
from mgral_service.datasets.loading import ImageStore, load_images
from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.boxes import Annotations, Detections
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.ports import Weights
from mgral_service.domain.records import ProxySpec
from mgral_service.domain.specs import DatasetSpec, DetectorSpec, TableAdvanced, TableSpec
from mgral_service.domain.value.design import tilted_batches
from mgral_service.metrics import METRICS

STORE = OUT / "proxies.jsonl"
SCENES = 600
BATCHES, BATCH_SIZE = 48, 40  # of a world
SEED = 0

PROXIES: Mapping[str, TableAdvanced] = {
    "full": TableAdvanced(start="initial", rate=1.0, augmentations=0),
    "warm": TableAdvanced(start="detector", rate=0.3, augmentations=0),
    "head": TableAdvanced(start="initial", rate=1.0, augmentations=4),
    "head_warm": TableAdvanced(start="detector", rate=0.3, augmentations=4),
}
"""How a proxy trains: from the initial weights or from the task detector; on images, or its head
alone on stored features. "head_warm" is the default of a table.
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """world: "digits" or a shared dataset; labelled: images with labels at the start; with_labels:
    the batch trains with its labels, as an oracle would give them, else without.
    """

    world: str
    detector: DetectorSpec
    table: TableSpec
    labelled: int = 40
    with_labels: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One proxy; batch: its number in the world."""

    setting: Setting
    batch: int
    seed: int

    @property
    def key(self) -> str:
        text = json.dumps(_changed(asdict(self), asdict(_PLAIN)), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


_PLAIN = Job(Setting("", DetectorSpec(), TableSpec()), -1, -1)


def _changed(values: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from `plain`, so that a field that is added later changes no key."""
    return {
        name: _changed(value, plain[name]) if isinstance(value, dict) else value
        for name, value in values.items()
        if value != plain[name]
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    """ap50, ap: of the trained proxy on the scoring images, fractions.

    duration_s: scoring included; on a CPU of one thread's processor time, so that other work on the
    machine does not count
    """

    ap50: float
    ap: float
    duration_s: float


@dataclass(slots=True)
class BothMetrics:
    """ports.RewardMetric: AP50, and AP beside it, of all detections that were scored."""

    ap50: list[float] = field(default_factory=list)
    ap: list[float] = field(default_factory=list)

    def __call__(self, detections: Detections, annotations: Annotations) -> float:
        self.ap.append(METRICS["ap"]()(detections, annotations))
        self.ap50.append(METRICS["ap50"]()(detections, annotations))
        return self.ap50[-1]


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """A dataset divided: labelled images, scoring images, and tilted batches of the rest.

    weights: of a detector of the labelled images, by whose predictions batches are tilted
    """

    data: Ingested
    images: ImageStore
    labelled: tuple[str, ...]
    scoring: tuple[str, ...]
    weights: Weights
    batches: tuple[tuple[str, ...], ...]


@lru_cache(maxsize=2)
def world(name: str, detector: DetectorSpec, labelled: int, device: str) -> World:
    """A third of the training images score, `labelled` others are labelled. No test image is used.

    name: "digits" or a shared dataset
    """
    with tempfile.TemporaryDirectory() as folder:
        root = write_digits(Path(folder) / "d", SCENES) if name == "digits" else dataset(name)
        data = ingest(DatasetSpec(name, str(root)))
        images = load_images(root, data.images.images, detector.size)
    rng = np.random.default_rng(SEED)
    ids = rng.permutation(sorted(data.images.labelled)).tolist()
    third = len(ids) // 3
    scoring, labelled_ids, pool_ids = (
        ids[:third],
        ids[third : third + labelled],
        ids[third + labelled :],
    )
    classes = data.record.classes
    task = TaskDetector(detector, classes, images, METRICS["ap50"](), SEED, device)
    task.fit(data.annotations.subset(labelled_ids), lambda progress: None)
    predictions = task.predict([*labelled_ids, *pool_ids], lambda progress: None)
    pool = CandidatePool(predictions, labelled_ids, pool_ids, classes, BATCH_SIZE)
    drawn = tilted_batches(pool, BATCHES, np.random.default_rng(SEED))
    return World(
        data=data,
        images=images,
        labelled=tuple(labelled_ids),
        scoring=tuple(scoring),
        weights=task.state(),
        batches=tuple(pool.names(batch) for batch in drawn),
    )


def train(job: Job, device: str) -> Outcome:
    """One proxy, by the trainer of the service."""
    setting = job.setting
    place = world(setting.world, setting.detector, setting.labelled, device)
    trainer, metric = _trainer(setting, device)
    batch = place.batches[job.batch]
    spec = ProxySpec(
        index=0,
        role="tilted",
        chosen_by="tilted",
        fold=None,
        batch=batch,
        labelled=(*place.labelled, *batch) if setting.with_labels else place.labelled,
        unlabelled=() if setting.with_labels else batch,
        scoring=place.scoring,
        seed=job.seed,
    )
    from_detector = setting.table.advanced.start == "detector"
    clock = process_time if device == "cpu" else perf_counter
    began = clock()
    (result,) = trainer.train([spec], {None: place.weights} if from_detector else {})
    duration_s = clock() - began
    if result.score is None:
        raise RuntimeError(f"a proxy failed: {result.cause}")
    return Outcome(metric.ap50[-1], metric.ap[-1], duration_s)


@lru_cache(maxsize=1)
def _trainer(setting: Setting, device: str) -> tuple[LocalProxyTrainer, BothMetrics]:
    place = world(setting.world, setting.detector, setting.labelled, device)
    metric = BothMetrics()
    trainer = LocalProxyTrainer(
        setting.detector,
        setting.table,
        place.data.record.classes,
        place.images,
        place.data.annotations,
        metric,
        device,
    )
    return trainer, metric


def _result(job: Job, device: str) -> dict[str, float]:
    return asdict(train(job, device))


def outcomes(jobs: Sequence[Job], device: str) -> list[Outcome]:
    """In the order of `jobs`; those that are stored at once, others on every core."""
    tasks = {job.key: job for job in jobs}
    processes = None if device == "cpu" else 1
    stored = results(STORE, tasks, partial(_result, device=device), processes)
    return [Outcome(**stored[job.key]) for job in jobs]


@dataclass(frozen=True, slots=True)
class Grid:
    """`batches` batches of a setting from number `first` on, each trained with every seed."""

    setting: Setting
    batches: int
    seeds: tuple[int, ...]
    first: int = 0

    @property
    def jobs(self) -> list[Job]:
        numbers = range(self.first, self.first + self.batches)
        return [Job(self.setting, batch, seed) for batch in numbers for seed in self.seeds]


Name = TypeVar("Name")


def grids(wanted: Mapping[Name, Grid], device: str) -> dict[Name, list[list[Outcome]]]:
    """[batch][seed] of each."""
    flat = iter(outcomes([job for grid in wanted.values() for job in grid.jobs], device))
    return {
        name: [[next(flat) for _ in grid.seeds] for _ in range(grid.batches)]
        for name, grid in wanted.items()
    }


def scores(trained: list[list[Outcome]], metric: str) -> FloatArray:
    """[batches, seeds] of "ap50" or "ap"."""
    return np.array([[getattr(outcome, metric) for outcome in row] for row in trained])


def median_duration_s(trained: list[list[Outcome]]) -> float:
    return float(np.median([[outcome.duration_s for outcome in row] for row in trained]))


def one_thread() -> None:
    limit_threads(1)

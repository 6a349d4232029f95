"""Proxies trained for a measurement: common images and batches, many at once, each kept on disk.

A training that `out/benchmarks/trainings.jsonl` holds is not repeated, so a benchmark that was
interrupted goes on, and two that need the same proxies share them.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, TypeVar

import numpy as np

from benchmarks.harness import HERE, dataset, kept_lines
from mgral_service.datasets import Ingested, ingest
from mgral_service.datasets.digits import write_digits
from mgral_service.datasets.loading import ImageStore, load_images
from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector
from mgral_service.domain import design
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.boxes import Annotations, Detections
from mgral_service.domain.ports import Weights
from mgral_service.domain.records import ProxySpec
from mgral_service.domain.specs import DatasetSpec, DetectorSpec, TableSpec
from mgral_service.metrics import METRICS

KEPT = HERE.parent / "out" / "benchmarks" / "trainings.jsonl"
SCENES = 600
SEED = 0


@dataclass(frozen=True, slots=True)
class Setting:
    """world: "vehicles_openimages" or "digits"; labelled: images with labels at the start; with
    labels: the batch trains with its own (what an oracle would give), else without.
    """

    world: str
    detector: DetectorSpec
    table: TableSpec
    labelled: int = 40
    with_labels: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """One proxy: batch `batch` of the world's, seed as given."""

    setting: Setting
    batch: int
    seed: int

    @property
    def key(self) -> str:
        told = json.dumps(_said(asdict(self), asdict(PLAIN)), sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:24]


PLAIN = Job(Setting("", DetectorSpec(), TableSpec()), -1, -1)


def _said(one: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """What differs from the defaults, so that a field added later changes no key."""
    return {
        name: _said(value, plain[name]) if isinstance(value, dict) else value
        for name, value in one.items()
        if value != plain[name]
    }


@dataclass(frozen=True, slots=True)
class Outcome:
    """ap50, ap: at each checkpoint, the last one at the end; score: what the trainer made of them.

    seconds: scoring included; on a CPU, of one thread's processor time, so that other work on the
    machine does not count
    """

    key: str
    score: float
    seconds: float
    ap50: tuple[float, ...] = ()
    ap: tuple[float, ...] = ()


@dataclass(slots=True)
class BothMetrics:
    """AP50 as the reward; AP beside it, on the same detections."""

    ap50: list[float] = field(default_factory=list)
    ap: list[float] = field(default_factory=list)

    def __call__(self, detections: Detections, annotations: Annotations) -> float:
        self.ap.append(METRICS["ap"]()(detections, annotations))
        self.ap50.append(METRICS["ap50"]()(detections, annotations))
        return self.ap50[-1]


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Images, who is labelled, who scores, what is left to choose from, and a fitted detector's
    weights; `batches` are tilted by what that detector saw.
    """

    data: Ingested
    images: ImageStore
    labelled: tuple[str, ...]
    scoring: tuple[str, ...]
    weights: Weights
    batches: tuple[tuple[str, ...], ...]


@lru_cache(maxsize=2)
def world(name: str, detector: DetectorSpec, labelled: int, device: str) -> World:
    """`labelled` images and a scoring set of a third, drawn by SEED; 48 batches of 40 of the rest.

    test.json is left alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = write_digits(Path(folder) / "d", SCENES) if name == "digits" else dataset(name)
        data = ingest(DatasetSpec(name, str(root)))
        images = load_images(root, data.images, detector.size)
    ids = np.random.default_rng(SEED).permutation(sorted({*data.labelled, *data.scoring})).tolist()
    third = len(ids) // 3
    scoring, paid, pool = ids[:third], ids[third : third + labelled], ids[third + labelled :]
    task = TaskDetector(detector, data.classes, images, METRICS["ap50"](), SEED, device)
    task.fit(data.annotations.subset(paid), lambda progress: None)
    seen = task.observe([*paid, *pool], lambda progress: None)
    drawn = design.draw(
        "tilted",
        48,
        40,
        seen,
        np.arange(len(paid)),
        np.arange(len(paid), len(paid) + len(pool)),
        {},
        np.random.default_rng(SEED),
    )
    order = np.random.default_rng(SEED).permutation(len(drawn))
    batches = tuple(drawn[at].batch for at in order)
    return World(data, images, tuple(paid), tuple(scoring), task.state(), batches)


def train(job: Job, device: str) -> Outcome:
    """One proxy, by the product's own trainer."""
    setting = job.setting
    place = world(setting.world, setting.detector, setting.labelled, device)
    metric = BothMetrics()
    trainer = _trainer(setting, device)
    trainer._metric = metric
    batch = place.batches[job.batch]
    spec = ProxySpec(0, place.labelled, batch, job.seed)
    if setting.with_labels:
        spec = ProxySpec(0, (*place.labelled, *batch), (), job.seed)
    starts = {0: place.weights} if setting.table.start == "detector" else {}
    began = process_time() if device == "cpu" else perf_counter()
    (result,) = trainer.train([spec], starts)
    took = (process_time() if device == "cpu" else perf_counter()) - began
    if result.score is None:
        raise RuntimeError(f"a proxy failed: {result.cause}")
    return Outcome(job.key, result.score, took, tuple(metric.ap50), tuple(metric.ap))


@lru_cache(maxsize=1)
def _trainer(setting: Setting, device: str) -> LocalProxyTrainer:
    place = world(setting.world, setting.detector, setting.labelled, device)
    return LocalProxyTrainer(
        setting.detector,
        setting.table,
        place.data.classes,
        place.images,
        place.data.annotations,
        place.scoring,
        METRICS["ap50"](),
        device,
    )


def outcomes(jobs: Sequence[Job], device: str) -> list[Outcome]:
    """In the order of `jobs`; those that are kept at once, others on every core, a thread each."""
    kept = {told["key"]: Outcome(**told) for told in kept_lines(KEPT)}
    todo = [job for job in dict.fromkeys(jobs) if job.key not in kept]
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    many = (os.cpu_count() or 1) if device == "cpu" else 1
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(many, context, one_thread) as pool,
        KEPT.open("a", encoding="utf-8") as file,
    ):
        waiting = [pool.submit(train, job, device) for job in todo]
        for number, done in enumerate(as_completed(waiting), start=1):
            outcome = done.result()
            print(f"\r{number} of {len(waiting)} proxies", end="", file=sys.stderr, flush=True)
            kept[outcome.key] = outcome
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()
    if waiting:
        print(file=sys.stderr)
    return [kept[job.key] for job in jobs]


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
        return [Job(self.setting, at, seed) for at in numbers for seed in self.seeds]


Name = TypeVar("Name")


def grids(wanted: Mapping[Name, Grid], device: str) -> dict[Name, list[list[Outcome]]]:
    """[batch][seed] of each."""
    flat = iter(outcomes([job for one in wanted.values() for job in one.jobs], device))
    return {
        name: [[next(flat) for _ in one.seeds] for _ in range(one.batches)]
        for name, one in wanted.items()
    }


def scores(some: list[list[Outcome]], metric: str = "score") -> FloatArray:
    """[batches, seeds] of "score", or the last "ap50" or "ap", or their mean ("ap50_mean")."""

    def one(outcome: Outcome) -> float:
        if metric == "score":
            return outcome.score
        curve = getattr(outcome, metric.removesuffix("_mean"))
        return float(np.mean(curve)) if metric.endswith("_mean") else float(curve[-1])

    return np.array([[one(outcome) for outcome in row] for row in some])


def seconds(some: list[list[Outcome]]) -> float:
    """Median of a training."""
    return float(np.median([[outcome.seconds for outcome in row] for row in some]))


def one_thread() -> None:
    import torch

    torch.set_num_threads(1)

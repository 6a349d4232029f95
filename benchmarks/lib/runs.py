"""A cycle of a comparison: the product's own `cycle.run.run` and `evaluate` on a detector in this
process, scored on test images that the cycle never reads.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.lib.curves import Point
from benchmarks.lib.harness import dataset
from benchmarks.lib.memory_log import MemoryLog
from benchmarks.lib.trainings import BothMetrics
from mgral_service.cycle.context import CycleContext
from mgral_service.cycle.run import evaluate, run
from mgral_service.datasets import Ingested, ingest
from mgral_service.datasets.digits import write_digits
from mgral_service.datasets.loading import ImageStore, load_images
from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector, fold_spec
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.pool import PoolSplit, carve_scoring, label
from mgral_service.domain.ports import Report, Weights
from mgral_service.domain.records import Progress
from mgral_service.domain.seeds import Purpose, seed_of, stream
from mgral_service.domain.specs import CycleSpec, DatasetSpec
from mgral_service.metrics import METRICS
from mgral_service.strategies import STRATEGIES

SCORING_SHARE = 0.25  # of the training images: never in a pool; the paper's method scores on them
DATA = {  # folder; "": generated
    "digits": "",
    "vehicles": "vehicles_openimages",
    "bccd": "bccd",
    "chess_pieces": "chess_pieces",
}


@dataclass(frozen=True, slots=True)
class Job:
    """A cycle of a run, after the batches that were `bought` before it; cycle 0: the initial images
    alone, the same for all strategies.

    world, scenes   which data (DATA), and how many scenes where they are generated
    initial         labelled images at the start, drawn by `spec.seed`
    strategy        the name of `spec` in the comparison
    """

    world: str
    scenes: int
    initial: int
    strategy: str
    spec: CycleSpec
    device: str
    cycle: int = 0
    bought: tuple[tuple[str, ...], ...] = ()

    @property
    def key(self) -> str:
        """Of all that makes its result; what earlier cycles bought follows from the rest."""
        spec = asdict(self.spec)
        if self.cycle == 0:
            del spec["strategy"], spec["budget"]
        if self.cycle == 0 or self.spec.strategy != "mgral":
            for unused in ("table", "agent", "method", "choice", "advanced"):
                del spec[unused]
        return _digest([self.world, self.scenes, self.initial, spec, self.device, self.cycle])

    def key_after(self, batch: Sequence[str]) -> str:
        """Of all that makes what a detector gives after it: not of who chose the images."""
        images = sorted(image_id for bought in (*self.bought, batch) for image_id in bought)
        parts = [self.world, self.scenes, self.initial, asdict(self.spec.detector), self.spec.seed]
        return _digest([*parts, self.device, images])

    def after(self, point: Point) -> Job:
        """The run's next cycle."""
        bought = (*self.bought, point.batch) if self.cycle else ()
        return replace(self, cycle=self.cycle + 1, bought=bought)


def _digest(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    data: Ingested
    images: ImageStore

    def split(self, job: Job) -> PoolSplit:
        """Roles at the start of the job's cycle, by its seed; test images have none. The paper's
        method alone has scoring images.
        """
        rng = stream(job.spec.seed, Purpose.INITIAL)
        every = sorted({*self.data.images.labelled, *self.data.images.scoring})
        scoring = carve_scoring(every, SCORING_SHARE, rng)
        left = rng.permutation(sorted({*every} - {*scoring})).tolist()
        initial, pool = left[: job.initial], tuple(left[job.initial :])
        if job.spec.method != "paper":
            scoring = ()
        split = PoolSplit(dict.fromkeys(initial, 0), pool, scoring)
        for number, batch in enumerate(job.bought, start=1):
            split = label(split, batch, number)
        return split


@lru_cache(maxsize=1)
def place(name: str, scenes: int, size: int) -> Place:
    with tempfile.TemporaryDirectory() as folder:
        root = dataset(DATA[name]) if DATA[name] else write_digits(Path(folder) / "d", scenes)
        data = ingest(DatasetSpec(name, str(root), test="test.json"))
        return Place(data, load_images(root, data.images.images, size))


class CarriedDetector(TaskDetector):
    """A task detector that was fitted to some images in another process."""

    _carried: tuple[frozenset[str], Weights] = (frozenset(), {})

    def carry(self, images: Iterable[str], weights: Weights) -> None:
        """To be fitted to these images means to take these weights."""
        self._carried = frozenset(images), weights

    def fit(self, train: Annotations, report: Report) -> None:
        images, weights = self._carried
        if images == {*train.ids}:
            self._net.load_state_dict({name: torch.tensor(weights[name]) for name in weights})
        else:
            super().fit(train, report)


def step(job: Job, weights: Weights | None) -> tuple[Point, Weights]:
    """The job's point, and the weights of the detector that gave it. weights: of the detector after
    the cycle before; None: it is fitted again.
    """
    torch.set_num_threads(1)
    spec, here = job.spec, place(job.world, job.scenes, job.spec.detector.size)
    split, truth = here.split(job), here.data.annotations
    metric = BothMetrics()
    seed = seed_of(spec.seed, Purpose.DETECTOR)
    classes = here.data.record.classes
    detector = CarriedDetector(spec.detector, classes, here.images, metric, seed, job.device)
    if weights is None and job.cycle:  # not what choosing takes
        detector.fit(truth.subset(split.labelled), _silent)
        weights = detector.state()
    if weights is not None:
        detector.carry(split.labelled, weights)
    batch: tuple[str, ...] = ()
    chosen_by, seconds, cycle_log = "", 0.0, MemoryLog()
    if not job.cycle:
        detector.fit(truth.subset(split.labelled), _silent)
    else:
        context = cycle_context(job, here, split, detector)
        clock = time.process_time if job.device == "cpu" else time.perf_counter
        began = clock()
        selection = run(context, cycle_log)
        seconds, chosen_by = clock() - began, selection.strategy
        batch = tuple(image.image_id for image in selection.images)
        evaluate(context, truth.subset(batch), cycle_log)
    ap50 = detector.score(truth.subset(here.data.images.test))
    bought = truth.subset((*split.labelled, *batch))
    new = truth.subset(batch or split.labelled)
    report = cycle_log.report()
    table = report.table if report is not None else None
    point = Point(
        world=job.world,
        strategy=job.strategy,
        seed=spec.seed,
        cycle=job.cycle,
        images=len(bought),
        boxes=int((~bought.ignore).sum()),
        ap50=ap50,
        ap=metric.ap[-1],
        seconds=round(seconds, 3),
        trainings=len(cycle_log.records()) + (len(report.failed_proxies) if report else 0),
        batch=batch,
        counts=tuple(np.bincount(new.labels[~new.ignore], minlength=len(classes)).tolist()),
        chosen_by=chosen_by,
        reward=table.reliability if table else None,
        candidates=table.candidates if table else (),
    )
    return point, detector.state()


def again(job: Job, batch: Sequence[str], turn: int) -> float:
    """AP50 of another detector trained on what was labelled after the job, whose batch that is;
    turn: 1 or more, which other.
    """
    torch.set_num_threads(1)
    spec, here = job.spec, place(job.world, job.scenes, job.spec.detector.size)
    truth, seed = here.data.annotations, seed_of(job.spec.seed, Purpose.DETECTOR, turn)
    metric, classes = METRICS["ap50"](), here.data.record.classes
    detector = TaskDetector(spec.detector, classes, here.images, metric, seed, job.device)
    detector.fit(truth.subset((*here.split(job).labelled, *batch)), _silent)
    return detector.score(truth.subset(here.data.images.test))


def cycle_context(job: Job, here: Place, split: PoolSplit, detector: TaskDetector) -> CycleContext:
    """Without a label of the pool, and without a test image."""
    spec, classes = job.spec, here.data.record.classes
    annotations = here.data.annotations.subset((*split.labelled, *split.scoring))
    metric = METRICS[spec.rewarded_by]()
    fold_detector = TaskDetector(
        fold_spec(spec.detector, spec.table),
        classes,
        here.images,
        metric,
        seed_of(spec.seed, Purpose.DETECTOR),
        job.device,
    )
    proxies = LocalProxyTrainer(
        spec.detector, spec.table, classes, here.images, annotations, metric, job.device
    )
    return CycleContext(
        id=f"cyc_{job.key}",
        spec=spec,
        split=split,
        classes=classes,
        annotations=annotations,
        detector=detector,
        fold_detector=fold_detector,
        proxies=proxies,
        strategy=lambda name: STRATEGIES[name](),
    )


def _silent(progress: Progress) -> None: ...

"""One cycle of one run of a comparison: the product's own `cycle.run` and `cycle.evaluate` on a
detector in this process, scored on test images that the cycle never sees.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.curves import Point
from benchmarks.harness import dataset
from benchmarks.trainings import BothMetrics
from mgral_service import cycle
from mgral_service.datasets import Ingested, ingest
from mgral_service.datasets.digits import write_digits
from mgral_service.datasets.loading import ImageStore, load_images
from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector
from mgral_service.domain.boxes import Annotations, PoolObservation
from mgral_service.domain.evidence import CycleReport, Evidence, Reliability, TablePoint
from mgral_service.domain.pool import PoolSplit, carve_scoring, label
from mgral_service.domain.ports import Report, Weights
from mgral_service.domain.records import LookupRecord, Progress, Selection, Status
from mgral_service.domain.seeds import Purpose, seed_of, stream
from mgral_service.domain.specs import CycleSpec, DatasetSpec
from mgral_service.metrics import METRICS
from mgral_service.strategies import STRATEGIES
from mgral_service.strategies.trials import LEARNED

SCORING_SHARE = 0.25  # of the training images
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
    earlier         records of batches that one strategy chose, of each cycle before
    """

    world: str
    scenes: int
    initial: int
    strategy: str
    spec: CycleSpec
    device: str
    cycle: int = 0
    bought: tuple[tuple[str, ...], ...] = ()
    earlier: tuple[tuple[TablePoint, ...], ...] = ()

    @property
    def key(self) -> str:
        """Of all that makes its result; what earlier cycles found follows from the rest."""
        spec = asdict(self.spec)
        if self.spec.reward is None:
            del spec["reward"]
        if self.cycle == 0:
            del spec["strategy"], spec["budget"]
        if self.cycle == 0 or self.spec.strategy != "mgral":
            for unused in ("table", "agent", "when_uninformed", "choice"):
                del spec[unused]
        return _digest([self.world, self.scenes, self.initial, spec, self.device, self.cycle])

    def key_after(self, batch: Sequence[str]) -> str:
        """Of all that makes what a detector gives after it: not of who chose the images."""
        images = sorted(name for some in (*self.bought, batch) for name in some)
        told = [self.world, self.scenes, self.initial, asdict(self.spec.detector), self.spec.seed]
        return _digest([*told, self.device, images])

    def after(self, found: Point) -> Job:
        """The run's next cycle."""
        bought = (*self.bought, found.batch) if self.cycle else ()
        earlier = (*self.earlier, found.tried) if self.cycle else ()
        return replace(self, cycle=self.cycle + 1, bought=bought, earlier=earlier)


def _digest(told: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    data: Ingested
    images: ImageStore

    def split(self, job: Job) -> PoolSplit:
        """Roles at the start of the job's cycle, by its seed; test images have none."""
        rng = stream(job.spec.seed, Purpose.INITIAL)
        every = sorted({*self.data.labelled, *self.data.scoring})
        scoring = carve_scoring(every, SCORING_SHARE, rng)
        left = rng.permutation(sorted({*every} - {*scoring})).tolist()
        initial, pool = left[: job.initial], tuple(left[job.initial :])
        split = PoolSplit(dict.fromkeys(initial, 0), pool, scoring)
        for number, batch in enumerate(job.bought, start=1):
            split = label(split, batch, number)
        return split


@lru_cache(maxsize=1)
def place(name: str, scenes: int, size: int) -> Place:
    with tempfile.TemporaryDirectory() as folder:
        root = dataset(DATA[name]) if DATA[name] else write_digits(Path(folder) / "d", scenes)
        data = ingest(DatasetSpec(name, str(root), test="test.json"))
        return Place(data, load_images(root, data.images, size))


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


class Notebook:
    """cycle.Journal in memory."""

    def __init__(self) -> None:
        self._seen: PoolObservation | None = None
        self._weights: Weights | None = None
        self._records: dict[int, LookupRecord] = {}
        self._report: CycleReport | None = None

    @property
    def evidence(self) -> Evidence | None:
        return None if self._report is None else self._report.evidence

    @property
    def tried(self) -> tuple[TablePoint, ...]:
        """Records of batches that one strategy chose."""
        table = self.evidence.table if self.evidence is not None else ()
        return tuple(one for one in table if one.design in (*LEARNED, *STRATEGIES))

    @property
    def trainings(self) -> int:
        """Of proxies, those that failed included."""
        if self._report is None:
            return 0
        failed = len(self._report.failed_proxies)
        return (len(self._records) + failed) * self._report.spec.table.repeats

    def enter(self, status: Status) -> None: ...

    def progress(self, progress: Progress) -> None: ...

    def clock(self) -> float:
        return time.monotonic()

    def observation(self) -> PoolObservation | None:
        return self._seen

    def keep_observation(self, observation: PoolObservation) -> None:
        self._seen = observation

    def records(self) -> tuple[LookupRecord, ...]:
        return tuple(self._records[index] for index in sorted(self._records))

    def keep_record(self, record: LookupRecord) -> None:
        self._records[record.index] = record

    def report(self) -> CycleReport | None:
        return self._report

    def keep_report(self, report: CycleReport) -> None:
        self._report = report

    def keep_agent(self, arrays: Mapping[str, Any], winner: str) -> None: ...

    def keep_selection(self, selection: Selection) -> None: ...

    def detector(self) -> Weights | None:
        return self._weights

    def keep_detector(self, weights: Weights) -> None:
        self._weights = weights

    def keep_retrained(self, weights: Weights) -> None: ...


def step(job: Job, weights: Weights | None) -> tuple[Point, Weights]:
    """The job's point, and the weights of the detector that gave it. weights: of the detector after
    the cycle before; None: it is fitted again.
    """
    torch.set_num_threads(1)
    spec, here = job.spec, place(job.world, job.scenes, job.spec.detector.size)
    split, truth = here.split(job), here.data.annotations
    metric = BothMetrics()
    seed = seed_of(spec.seed, Purpose.DETECTOR)
    classes = here.data.classes
    detector = CarriedDetector(spec.detector, classes, here.images, metric, seed, job.device)
    if weights is None and job.cycle:  # not what choosing takes
        detector.fit(truth.subset(split.labelled), _silent)
        weights = detector.state()
    if weights is not None:
        detector.carry(split.labelled, weights)
    batch: tuple[str, ...] = ()
    chosen_by, seconds, trainings = "", 0.0, 0
    tried: tuple[TablePoint, ...] = ()
    reward: Reliability | None = None
    if not job.cycle:
        detector.fit(truth.subset(split.labelled), _silent)
    else:
        journal = Notebook()
        bench = workbench(job, here, split, detector)
        clock = time.process_time if job.device == "cpu" else time.perf_counter
        began = clock()
        selection = cycle.run(bench, journal)
        seconds, trainings, chosen_by = clock() - began, journal.trainings, selection.strategy
        tried = journal.tried
        reward = journal.evidence.reliability if journal.evidence is not None else None
        batch = tuple(one.image_id for one in selection.images)
        cycle.evaluate(bench, truth.subset(batch), journal)
    ap50 = detector.score(truth.subset(here.data.test))
    known, new = truth.subset((*split.labelled, *batch)), truth.subset(batch or split.labelled)
    point = Point(
        job.world,
        job.strategy,
        spec.seed,
        job.cycle,
        len(known),
        int((~known.ignore).sum()),
        ap50,
        metric.ap[-1],
        round(seconds, 3),
        trainings,
        batch,
        tuple(np.bincount(new.labels[~new.ignore], minlength=len(classes)).tolist()),
        chosen_by,
        tried,
        reward=reward,
    )
    return point, detector.state()


def again(job: Job, batch: Sequence[str], turn: int) -> float:
    """AP50 of another detector trained on what was labelled after the job, whose batch that is;
    turn: 1 or more, which other.
    """
    torch.set_num_threads(1)
    spec, here = job.spec, place(job.world, job.scenes, job.spec.detector.size)
    truth, seed = here.data.annotations, seed_of(job.spec.seed, Purpose.DETECTOR, turn)
    metric = METRICS["ap50"]()
    detector = TaskDetector(spec.detector, here.data.classes, here.images, metric, seed, job.device)
    detector.fit(truth.subset((*here.split(job).labelled, *batch)), _silent)
    return detector.score(truth.subset(here.data.test))


def workbench(job: Job, here: Place, split: PoolSplit, detector: TaskDetector) -> cycle.Workbench:
    """Without a label of the pool, and without a test image."""
    spec, classes = job.spec, here.data.classes
    known = here.data.annotations.subset((*split.labelled, *split.scoring))
    proxies = LocalProxyTrainer(
        spec.detector,
        spec.table,
        classes,
        here.images,
        known,
        split.scoring,
        METRICS[spec.rewarded_by](),
        job.device,
    )
    name = f"cyc_{job.key}"
    return cycle.Workbench(
        name,
        spec,
        split,
        classes,
        known,
        detector,
        proxies,
        lambda one: STRATEGIES[one](),
        job.earlier,
    )


def _silent(progress: Progress) -> None: ...

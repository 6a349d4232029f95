"""What `reward_fidelity` measures on: a world's images, what a detector of the labelled ones saw
there, the trainer of its proxies, and the trainings that are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Self

import numpy as np

from benchmarks.harness import kept_lines
from benchmarks.proxy_fidelity import short
from benchmarks.trainings import World, world
from mgral_service import codec
from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector
from mgral_service.domain import transport
from mgral_service.domain.arrays import IntArray
from mgral_service.domain.boxes import Detections, PoolObservation
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import ProxyTrainer, QueryStrategy, Weights
from mgral_service.domain.records import LookupRecord, Progress
from mgral_service.domain.specs import CycleSpec, DetectorSpec, Metric, TableSpec
from mgral_service.metrics import METRICS
from mgral_service.strategies import STRATEGIES
from mgral_service.table import out_of_fold

Source = Literal["scoring", "scoring_ap30", "labelled", "semi_supervised", "both"]
AP30 = "_ap30"  # ends a source whose proxies are scored by that, others by AP50
BUDGET = 40


@dataclass(frozen=True, slots=True)
class Place:
    """Which images, how many of them labelled, and what tables are drawn from there."""

    data: str
    labelled: int
    sources: tuple[Source, ...]


# of a first cycle
FIRST: tuple[Source, ...] = ("scoring", "scoring_ap30", "semi_supervised", "both")
WORLDS = {
    "vehicles-40": Place("vehicles_openimages", 40, FIRST),
    "digits-40": Place("digits", 40, FIRST),
    "vehicles-120": Place("vehicles_openimages", 120, ("labelled",)),
    "digits-120": Place("digits", 120, ("labelled",)),
}


@dataclass(frozen=True, slots=True)
class Scale:
    """records: of a table; held_out: batches of each design; steps: of a proxy, which
    trains `repeats` times.
    """

    records: tuple[int, ...] = (16, 32, 64)
    held_out: int = 24
    steps: int = 150
    repeats: int = 4
    detector: DetectorSpec = DetectorSpec()  # noqa: RUF009 frozen


QUICK = Scale((4, 8), 3, 2, 1, DetectorSpec(steps=2))


class KeptLedger:
    """table.Ledger in a file of JSON lines, without the sketches, which follow from the batches."""

    def __init__(self, file: Path, sketch: Callable[[Sequence[str]], tuple[float, ...]]) -> None:
        self._file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        kept = (codec.build(LookupRecord, line) for line in kept_lines(file))
        self._records = {one.index: replace(one, sketch=sketch(one.batch)) for one in kept}

    def progress(self, progress: Progress) -> None:
        print(f"\r{self._file.stem}: {progress.done} of {progress.total} ", end="", flush=True)

    def records(self) -> tuple[LookupRecord, ...]:
        return tuple(self._records[index] for index in sorted(self._records))

    def keep_record(self, record: LookupRecord) -> None:
        self._records[record.index] = record
        with self._file.open("a", encoding="utf-8") as file:
            file.write(codec.encode(replace(record, sketch=())) + "\n")


class Site:
    """One world: its images, what a detector of the labelled ones saw, and the proxies' trainer."""

    def __init__(self, name: str, scale: Scale, device: str, kept: Path) -> None:
        self.name, self.scale, self.device, self._kept = name, scale, device, kept
        place = WORLDS[name]
        self.labelled = place.labelled
        self.world: World = world(place.data, scale.detector, place.labelled, device)
        data = self.world.data
        every = {*data.labelled, *data.scoring}
        paid = {*self.world.labelled, *self.world.scoring}
        self.pool = tuple(sorted(every - paid))
        self._detector = TaskDetector(
            scale.detector, data.classes, self.world.images, METRICS["ap50"](), 0, device
        )
        self._weights: dict[tuple[str, ...], Weights] = {}
        self.weights(self.world.labelled)
        self.seen: PoolObservation = self._detector.observe(
            [*self.world.labelled, *self.pool, *self.world.scoring], lambda progress: None
        )
        self._unlearnt: PoolObservation | None = None
        self._points = transport.standardise(self.seen.embeddings)
        self._place = {name: at for at, name in enumerate(self.seen.ids)}
        whole = TableSpec(
            steps=scale.steps,
            objective="csd",
            views=4,
            online=0,
            repeats=scale.repeats,
            twice=0.0,
        )
        self.table = short(whole)
        self._folder = TemporaryDirectory()
        self.proxies = self._trainer("ap50")

    def _trainer(self, metric: Metric) -> ProxyTrainer:
        build = partial(local, self.scale.detector, self.table, self.world, metric, self.device)
        if find_spec("ray") is None or self.device != "cpu":
            return build()
        from mgral_service.cluster.proxies import RayProxyTrainer

        return RayProxyTrainer(build, 2, 1.0, 0.0, 0, Path(self._folder.name))

    def rewarded(self, source: Source) -> Self:
        """The same with proxies that are scored as those of such a table."""
        if not source.endswith(AP30):
            return self
        other = copy(self)
        other.proxies = self._trainer("ap30")
        return other

    def strategy(self, name: str) -> QueryStrategy:
        return STRATEGIES[name]()

    def weights(self, base: Sequence[str]) -> Weights:
        """Fitted once for each base."""
        key = tuple(sorted(base))
        if key not in self._weights:
            truth = self.world.data.annotations.subset(key)
            self._detector.fit(truth, lambda progress: None)
            self._weights[key] = self._detector.state()
        return self._weights[key]

    def detections(self, base: Sequence[str], ids: Sequence[str]) -> Detections:
        key = tuple(sorted(base))
        self._weights.pop(key, None)
        self.weights(key)
        return self._detector.observe(ids, lambda progress: None).detections

    def seen_for(self, source: Source) -> PoolObservation:
        """What a cycle with a table of that source looks at."""
        if source == "labelled" and self._unlearnt is None:
            spec = CycleSpec(self.name, BUDGET, table=self.table_from(source))
            self._unlearnt = out_of_fold(spec, self.split, self.seen, self)
        return self._unlearnt if source == "labelled" and self._unlearnt else self.seen

    def table_from(self, source: Source) -> TableSpec:
        if source == "semi_supervised":
            return replace(self.table, source=source)
        reservoir: Any = source.removesuffix(AP30)
        return replace(self.table, source="hindsight", reservoir=reservoir)

    def places(self, batch: Sequence[str]) -> IntArray:
        return np.array([self._place[name] for name in batch], dtype=np.int64)

    def sketch(self, batch: Sequence[str]) -> tuple[float, ...]:
        return tuple(transport.batch_sketch(self._points, self.places(batch)).tolist())

    @property
    def split(self) -> PoolSplit:
        return PoolSplit(dict.fromkeys(self.world.labelled, 0), self.pool, self.world.scoring)

    def ledger(self, what: str) -> KeptLedger:
        told = f"{self.scale}|{self.table}|{self.name}|{self.device}"
        digest = hashlib.sha256(told.encode()).hexdigest()[:8]
        return KeptLedger(self._kept / f"{self.name}-{what}-{digest}.jsonl", self.sketch)


def local(
    detector: DetectorSpec, table: TableSpec, place: World, metric: Metric, device: str
) -> ProxyTrainer:
    import torch

    torch.set_num_threads(1)
    data = place.data
    return LocalProxyTrainer(
        detector,
        table,
        data.classes,
        place.images,
        data.annotations,
        place.scoring,
        METRICS[metric](),
        device,
    )

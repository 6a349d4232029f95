"""What an experiment will cost before it is started: `mgral run FILE.toml --dry-run`.

The counts follow from the spec, the hours from seconds a step: measured on random images, or given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from pathlib import Path
from statistics import median
from time import monotonic
from typing import TYPE_CHECKING, Literal

import numpy as np

from mgral_service import codec
from mgral_service.console import shown_bytes
from mgral_service.datasets import DATASETS
from mgral_service.datasets.images import folder_below
from mgral_service.datasets.ledger import Ledger
from mgral_service.datasets.listing import JOINED, image_folders, named_files, root_of
from mgral_service.datasets.loading import ImageStore, fit_in_memory
from mgral_service.domain import transport
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import DatasetRefused, InvalidInput
from mgral_service.domain.records import LookupRecord
from mgral_service.domain.specs import (
    CycleSpec,
    DatasetSpec,
    DetectorSpec,
    ExperimentSpec,
    TableSpec,
)

if TYPE_CHECKING:
    import torch

    from mgral_service.detectors.batches import Batch

FITS = 2  # trainings of the task detector in a cycle: before its selection, and after
PUBLISHED = {
    "VOC2007/trainval": 5_011,
    "VOC2012/trainval": 11_540,
    "VOC2007/test": 4_952,
    "annotations/instances_train2017.json": 118_287,
    "annotations/instances_val2017.json": 5_000,
}
"""Images of sets whose size is known where their files are not at hand."""
CLASSES = {"coco": 80, "voc": 20}
"""Classes to time a detector with where the files are not at hand."""
STEPS = 8  # timed
PATIENCE_S = 15.0  # for the timed steps of one kind of training
BOXES = 4  # on each image a step is timed with
Kind = Literal["detector", "hindsight", "semi_supervised"]
"""Of training: proxies of both sources differ by a batch without labels and its objective."""
KINDS: Mapping[Kind, str] = {
    "hindsight": "with labels",
    "semi_supervised": "with unlabelled images",
}


@dataclass(frozen=True, slots=True)
class Stock:
    """What the dataset holds.

    pool     labelled and unlabelled images, of which `initial` are shown; None: not known
    images   all of them, those of scoring and test included
    classes  None: not known
    words    where the figures come from, and what is missing
    scoring  images of a scoring set that the dataset names; None: not known
    """

    pool: int | None
    images: int | None
    classes: int | None
    words: tuple[str, ...]
    scoring: int | None = None


@dataclass(frozen=True, slots=True)
class StepSeconds:
    """Seconds of one optimiser step with the spec's batch, and where the figures come from."""

    detector: float
    proxy: float
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedCycle:
    """labelled: images with labels before it, those that score proxies included; budget: images it
    has annotated; proxies: at most; device_hours: of all its trainings; wall_hours: with the
    proxies side by side.
    """

    number: int
    labelled: int
    budget: int
    fits: int
    proxies: int
    device_hours: float
    wall_hours: float

    @property
    def trainings(self) -> int:
        return self.fits + self.proxies


@dataclass(frozen=True, slots=True)
class Plan:
    """detector_hours, proxy_hours: of one training; scoring, observing and the agent are not in it.

    proxy_steps  what a proxy trains, of table.steps
    scoring      labelled images set apart to score proxies; None: the dataset names its own
    table_bytes  of all cycles' records, as the store holds them
    image_bytes  of all images at training size; None: their number is not known
    iterations   of the agent in a cycle
    """

    cycles: tuple[PlannedCycle, ...]
    detector_hours: float
    proxy_hours: float
    proxy_steps: int
    scoring: int | None
    table_bytes: int
    image_bytes: int | None
    iterations: int

    @property
    def annotations(self) -> int:
        """Images annotated in all cycles."""
        return sum(one.budget for one in self.cycles)

    @property
    def trainings(self) -> int:
        return sum(one.trainings for one in self.cycles)

    @property
    def device_hours(self) -> float:
        return sum(one.device_hours for one in self.cycles)

    @property
    def wall_hours(self) -> float:
        return sum(one.wall_hours for one in self.cycles)


def plan(spec: ExperimentSpec, seconds: StepSeconds, stock: Stock, with_table: bool) -> Plan:
    """with_table: the strategy reads a table of trained proxies. InvalidInput if the cycles use up
    the pool.
    """
    table, detector = spec.cycle.table, spec.cycle.detector
    detector_hours = detector.steps * seconds.detector / 3600
    proxy_steps = table.repeats * max(1, round(table.stop * table.steps))
    proxy_hours = proxy_steps * seconds.proxy / 3600
    proxies = table.designed + table.online if with_table else 0
    waves = ceil(proxies / table.actors)
    carved = _carved(spec)
    scoring = stock.scoring if carved is None else carved
    fits = FITS
    divided = table.source != "semi_supervised" and not table.draws_from_scoring(scoring or 0)
    if with_table and divided:
        fits += table.rotations  # a detector of each base, which sees its reservoir
    cycles = []
    labelled = spec.initial
    for number in range(1, spec.cycles + 1):
        left = None if stock.pool is None else stock.pool - labelled
        if left is not None and left <= 0:
            raise InvalidInput(
                "cycles",
                f"the {stock.pool} images of {spec.dataset.labelled} are used up before cycle "
                f"{number}: ask for fewer, or for a smaller initial or cycle.budget",
            )
        budget = spec.cycle.budget if left is None else min(spec.cycle.budget, left)
        cycles.append(
            PlannedCycle(
                number,
                labelled,
                budget,
                fits,
                proxies,
                fits * detector_hours + proxies * proxy_hours,
                fits * detector_hours + waves * proxy_hours,
            )
        )
        labelled += budget
    side = detector.size
    return Plan(
        tuple(cycles),
        detector_hours,
        proxy_hours,
        proxy_steps,
        carved,
        sum(one.proxies * record_bytes(one.budget) for one in cycles),
        None if stock.images is None else stock.images * 3 * side * side,
        spec.cycle.agent.iterations if with_table else 0,
    )


def _carved(spec: ExperimentSpec) -> int | None:
    """Scoring images that the dataset does not name; None: it names its own."""
    if spec.dataset.scoring is not None:
        return None
    return min(max(1, round(spec.dataset.scoring_share * spec.initial)), spec.initial - 1)


def record_bytes(budget: int) -> int:
    """Of one record of the table with a batch of `budget` images, encoded for the store."""
    sketch = np.random.default_rng(0).normal(size=transport.DIRECTIONS * transport.LEVELS)
    record = LookupRecord(
        cycle="cyc_" + "0" * 20,
        index=100,
        batch=tuple(f"img_{at:020x}" for at in range(budget)),
        sketch=tuple(sketch.tolist()),
        score=1 / 3,
        seed=2**31 - 1,
        seconds=1000 / 3,
        design="uniform",
    )
    return len(codec.encode(record).encode())


# --- what is at hand ----------------------------------------------------------------------------


def stock_of(spec: DatasetSpec) -> Stock:
    """Counted in the dataset's files without opening an image; published counts without them."""
    missing: list[str] = []
    try:
        root = root_of(spec)
        for folder in image_folders(spec):
            try:
                folder_below(root, folder)
            except DatasetRefused as error:
                missing.append(str(error))
        catalogue = DATASETS[spec.format](spec, Ledger())
    except DatasetRefused as error:
        return _published(spec, (*missing, str(error)))
    counts = {listing.role: len(listing.images) for listing in catalogue.listings}
    pool = counts["labelled"] + counts.get("unlabelled", 0)
    total = sum(counts.values())
    found = f"{pool:,} images in the pool, {total - pool:,} others, counted in {spec.root}"
    words = (found, *missing)
    return Stock(pool, total, len(catalogue.classes), words, counts.get("scoring"))


def _published(spec: DatasetSpec, missing: tuple[str, ...]) -> Stock:
    sets = {role: file.split(JOINED) for role, file in named_files(spec)}
    names = [name for some in sets.values() for name in some]
    if not all(name in PUBLISHED for name in names):
        return Stock(None, None, None, ("the number of images is not known", *missing))
    pool = sum(
        PUBLISHED[name] for role in ("labelled", "unlabelled") for name in sets.get(role, ())
    )
    total = sum(PUBLISHED[name] for name in names)
    words = f"{pool:,} images in the pool, {total - pool:,} others, by their published counts"
    scoring = sum(PUBLISHED[name] for name in sets["scoring"]) if "scoring" in sets else None
    return Stock(pool, total, CLASSES[spec.format], (words, *missing), scoring)


def weights_checked(spec: DetectorSpec, classes: int) -> str:
    """Whether `spec.weights` fit, in words. A name is not fetched."""
    if spec.weights is None:
        return "ImageNet's, from a package" if spec.name == "ssdlite" else "random ones"
    if not Path(spec.weights).expanduser().is_file():
        return f"{spec.weights}: no file here; not fetched as torchvision's and not checked"
    import torch

    from mgral_service.detectors.local import build

    try:
        build(spec, _names(classes), torch.device("cpu"))
    except InvalidInput as error:
        return str(error)
    return f"{spec.weights}: read, and they fit {spec.name}"


def images_kept(count: int | None) -> str:
    """How many bytes of images there will be and where, in words; None: their number is unknown."""
    if count is None:
        return "unknown"
    where = "memory" if fit_in_memory(count) else "a file under MGRAL_HOME/images"
    return f"{shown_bytes(count)} in {where}"


# --- seconds a step -----------------------------------------------------------------------------


def measure(spec: CycleSpec, classes: int, device: str, with_table: bool) -> StepSeconds:
    """Time a few steps of both trainings on random images, with random initial weights.

    Where full batches are too slow, smaller ones are timed and scaled up in proportion.
    """
    import torch

    detector, table = replace(spec.detector, weights=None), spec.table
    bench = _Bench(replace(spec, detector=detector), classes, torch.device(device))
    fit, words = bench.seconds("detector")
    told = [f"a detector's step measured on {device}{words}"]
    proxy = 0.0
    if with_table:
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, round(table.cpus)))  # as an actor has them
        for kind, share in _kinds(table).items():
            each, words = bench.seconds(kind)
            proxy += share * each
            told.append(f"a proxy's step {KINDS[kind]} measured on {device}: {each:.3g} s{words}")
        torch.set_num_threads(threads)
    return StepSeconds(fit, proxy, tuple(told))


def _kinds(table: TableSpec) -> dict[Kind, float]:
    """What shares of the table's proxies train with and without labels: with hindsight at most so
    many without.
    """
    from mgral_service.domain.hindsight import shares

    count = shares(table, divided=True)
    without = (count.twins + count.rest) / table.records
    kinds: dict[Kind, float] = {"hindsight": 1.0 - without, "semi_supervised": without}
    return {kind: share for kind, share in kinds.items() if share}


class _Bench:
    """A network, and random images to train it on."""

    def __init__(self, spec: CycleSpec, classes: int, device: torch.device) -> None:
        from mgral_service.detectors.local import build

        self._spec, self._device = spec, device
        self._net = build(spec.detector, _names(classes), device)
        self._images, self._truth = _noise(spec.detector, classes)

    def seconds(self, kind: Kind) -> tuple[float, str]:
        """Of a step with a whole batch, and in words with how many images it was timed."""
        whole = self._spec.detector.batch
        size, taken = 2, self._timed(2, 1, kind)
        if taken[0] < PATIENCE_S / 2:
            taken = self._timed(2, 2, kind)[1:]
            size = min(whole, max(2, 2 * int(PATIENCE_S / (STEPS * taken[0]))))
            steps = max(1, min(STEPS, int(PATIENCE_S / (taken[0] * size / 2))))
            taken = self._timed(size, 1 + steps, kind)[1:]
        words = "" if size == whole else f" with {size} images, scaled to {whole}"
        return median(taken) * whole / size, words

    def _timed(self, size: int, steps: int, kind: Kind) -> list[float]:
        """Seconds of each step; the first warms up as well."""
        import torch

        from mgral_service.detectors import OBJECTIVES
        from mgral_service.detectors.fit import Recipe, fit

        marks: list[float] = []

        def mark() -> None:
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            marks.append(monotonic())

        def marked(batches: Iterator[Batch]) -> Iterator[Batch]:
            for batch in batches:
                mark()
                yield batch

        self._net.initialise(0)
        table = self._spec.table
        objective = OBJECTIVES[table.objective]() if kind == "semi_supervised" else None
        fit(
            self._net,
            marked(self._batches(size, kind)),
            Recipe.of(self._spec.detector, steps),
            lambda step, loss: None,
            objective,
        )
        mark()
        return [after - before for before, after in pairwise(marks)]

    def _batches(self, size: int, kind: Kind) -> Iterator[Batch]:
        from mgral_service.detectors.bank import FeatureBank
        from mgral_service.detectors.batches import draw_batches
        from mgral_service.detectors.local import training_set

        names = self._images.ids
        half = size // 2 if kind == "semi_supervised" else 0
        labelled, batch = names[half:size], names[:half]
        views = self._spec.table.views
        if kind != "detector" and views:
            bank = FeatureBank(self._net, self._images, self._truth, views)
            return bank.draw_batches(labelled, batch, size, 0)
        truth = self._truth.subset(labelled)
        return draw_batches(training_set(self._images, truth, batch, self._device), size, 0)


def _noise(spec: DetectorSpec, classes: int) -> tuple[ImageStore, Annotations]:
    """A batch of random images at training size, with BOXES random boxes each."""
    rng = np.random.default_rng(0)
    count, side = spec.batch, spec.size
    ids = tuple(f"img_{at:020x}" for at in range(count))
    store = ImageStore(
        ids,
        rng.integers(0, 256, (count, 3, side, side), np.uint8),
        np.full((count, 2), float(side)),
        {name: at for at, name in enumerate(ids)},
    )
    corner = rng.uniform(0, 0.5 * side, (count * BOXES, 2))
    extent = rng.uniform(0.1 * side, 0.5 * side, corner.shape)
    truth = Annotations(
        ids,
        np.repeat(np.arange(count), BOXES),
        np.concatenate([corner, corner + extent], axis=1),
        rng.integers(0, classes, count * BOXES),
        np.zeros(count * BOXES, np.bool_),
    )
    return store, truth


def _names(classes: int) -> Sequence[str]:
    return tuple(f"class {at}" for at in range(classes))

"""The cost of an experiment before it starts: `mgral estimate FILE.toml`.

Counts follow from the spec. Hours follow from seconds a step, measured on random images or given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from time import monotonic

import numpy as np

from mgral_service.app import wiring
from mgral_service.datasets.formats import format_of
from mgral_service.datasets.formats.listing import JOINED, named_files, root_of
from mgral_service.datasets.images import folder_below
from mgral_service.datasets.loading import ImageStore
from mgral_service.datasets.validation_log import ValidationLog
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import DatasetRefused, InvalidInput
from mgral_service.domain.records import ProxySpec
from mgral_service.domain.specs import CycleSpec, DatasetSpec, DetectorSpec, ExperimentSpec

STEPS = 8  # timed
PATIENCE_S = 15.0  # for the timed steps of one kind of training
BOXES = 4  # in each image of a timed step
RECORD_BYTES, ID_BYTES = 190, 27  # of a table's record without its batch, and of an id in it


@dataclass(frozen=True, slots=True)
class DatasetCounts:
    """What the dataset holds; None: not known.

    pool     labelled and unlabelled images, of which `initial` have labels
    images   all of them, scoring and test included
    notes    where the figures come from, and what is missing
    """

    pool: int | None
    images: int | None
    classes: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepSeconds:
    """Seconds of one optimiser step with the spec's batch, and where the figures come from."""

    detector: float
    proxy: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Each cycle trains the same. Predictions, scoring and the agents are not in the hours.

    labelled     images with labels before each cycle, and after the last
    detectors, proxies, agents  trained in a cycle
    detector_hours, proxy_hours  of one training; proxy_steps: its steps, repeats included
    device_hours  of a cycle's trainings; wall_hours: with `table.actors` proxies at a time
    scoring      labelled images set apart to score proxies (method "paper" without scoring images)
    table_bytes  of all records, as the store holds them
    image_bytes  of all images at training size; None: their number is not known
    """

    labelled: tuple[int, ...]
    detectors: int
    proxies: int
    agents: int
    detector_hours: float
    proxy_hours: float
    proxy_steps: int
    device_hours: float
    wall_hours: float
    scoring: int
    table_bytes: int
    image_bytes: int | None

    @property
    def cycles(self) -> int:
        """Their number."""
        return len(self.labelled) - 1


def estimate(
    spec: ExperimentSpec, seconds: StepSeconds, counts: DatasetCounts, with_table: bool
) -> Estimate:
    """with_table: the strategy reads a table of trained proxies. InvalidInput if the cycles use up
    the pool.
    """
    cycle, table, detector = spec.cycle, spec.cycle.table, spec.cycle.detector
    labelled = [spec.initial]
    for number in range(1, spec.cycles + 1):
        left = cycle.budget if counts.pool is None else counts.pool - labelled[-1]
        if left <= 0:
            raise InvalidInput(
                "cycles",
                f"the {counts.pool} images of {spec.dataset.labelled} are used up before cycle "
                f"{number}: ask for fewer, or for a smaller initial or cycle.budget",
            )
        labelled.append(labelled[-1] + min(cycle.budget, left))
    proxies = table.records if with_table else 0
    folds = table.folds if with_table and cycle.method == "default" else 0
    detectors = 2 + folds  # before the selection, after the annotations, and one in each fold
    scoring = 0
    if with_table and cycle.method == "paper" and spec.dataset.scoring is None:
        share = round(cycle.advanced.scoring_share * spec.initial)
        scoring = min(max(1, share), spec.initial - 1)
    proxy_steps = table.advanced.repeats * table.steps
    detector_hours = detector.steps * seconds.detector / 3600
    proxy_hours = proxy_steps * seconds.proxy / 3600
    ids = labelled[-1] - labelled[0]
    return Estimate(
        labelled=tuple(labelled),
        detectors=detectors,
        proxies=proxies,
        agents=int(with_table) + (folds if folds > 1 else 0),  # a fold's learns from the others
        detector_hours=detector_hours,
        proxy_hours=proxy_hours,
        proxy_steps=proxy_steps,
        device_hours=detectors * detector_hours + proxies * proxy_hours,
        wall_hours=detectors * detector_hours + ceil(proxies / table.actors) * proxy_hours,
        scoring=scoring,
        table_bytes=proxies * (spec.cycles * RECORD_BYTES + ids * ID_BYTES),
        image_bytes=None if counts.images is None else counts.images * 3 * detector.size**2,
    )


# --- the dataset and the weights ----------------------------------------------------------------


def count_dataset(spec: DatasetSpec) -> DatasetCounts:
    """Counted in the dataset's files without opening an image; published counts without them."""
    reader = format_of(spec)
    missing: list[str] = []
    classes = None
    try:
        root = root_of(spec)
        for folder in reader.image_folders(spec):
            try:
                folder_below(root, folder)
            except DatasetRefused as error:
                missing.append(str(error))
        catalogue = reader.read(spec, ValidationLog())
        sizes = {listing.role: len(listing.images) for listing in catalogue.listings}
        classes, source = len(catalogue.classes), f"counted in {spec.root}"
    except DatasetRefused as error:
        missing.append(str(error))
        sets = {role: file.split(JOINED) for role, file in named_files(spec)}
        if not reader.published.keys() >= {name for names in sets.values() for name in names}:
            return DatasetCounts(None, None, None, ("the number of images is not known", *missing))
        sizes = {
            role: sum(reader.published[name] for name in names) for role, names in sets.items()
        }
        source = "by their published counts"
    pool, total = sizes["labelled"] + sizes.get("unlabelled", 0), sum(sizes.values())
    note = f"{pool:,} images in the pool, {total - pool:,} others, {source}"
    return DatasetCounts(pool, total, classes, (note, *missing))


def check_weights(spec: DetectorSpec, classes: int) -> str:
    """A note on whether `spec.weights` fit. A name is not fetched."""
    if spec.weights is None:
        return "ImageNet's, from a package" if spec.name == "ssdlite" else "random"
    if not Path(spec.weights).expanduser().is_file():
        return f"{spec.weights}: no file here, so not checked; a name is fetched by torchvision"
    import torch

    from mgral_service.detectors.local import build

    try:
        build(spec, _class_names(classes), torch.device("cpu"))
    except InvalidInput as error:
        return str(error)
    return f"{spec.weights}: read, and they fit {spec.name}"


# --- seconds a step -----------------------------------------------------------------------------


def measure(spec: CycleSpec, classes: int, device: str, with_table: bool) -> StepSeconds:
    """Time a few steps of a detector and a proxy on random images, with random initial weights."""
    images, truth = _random_images(spec.detector, classes)
    names, whole = _class_names(classes), spec.detector.batch
    semi_supervised = spec.method == "paper" or spec.table.unlabelled > 0

    def shortened(size: int, steps: int) -> CycleSpec:
        advanced = replace(spec.table.advanced, repeats=1)
        return replace(
            spec,
            detector=replace(spec.detector, weights=None, batch=size, steps=steps),
            table=replace(spec.table, steps=steps, advanced=advanced),
        )

    def fit_detector(size: int, steps: int) -> float:
        detector = wiring.task_detector(shortened(size, steps), names, images, device)
        start = monotonic()
        detector.fit(truth.subset(truth.ids[:size]), lambda progress: None)
        return monotonic() - start

    def train_proxy(size: int, steps: int) -> float:
        half = size // 2 if semi_supervised else 0
        proxy = ProxySpec(
            index=0,
            role="uniform",
            chosen_by="uniform",
            fold=None,
            batch=(),
            labelled=truth.ids[half:size],
            unlabelled=truth.ids[:half],
            scoring=truth.ids[size : size + 1],
            seed=0,
        )
        trainer = wiring.local_proxies(shortened(size, steps), names, images, truth, device)
        start = monotonic()
        list(trainer.train([proxy]))
        return monotonic() - start

    detector_s, note = step_seconds(fit_detector, whole)
    notes, proxy_s = [f"a detector's step measured on {device}{note}"], 0.0
    if with_table:
        proxy_s, note = step_seconds(train_proxy, whole)
        kind = "labelled and unlabelled" if semi_supervised else "labelled"
        notes.append(f"a proxy's step on {kind} images measured on {device}{note}")
    return StepSeconds(detector_s, proxy_s, tuple(notes))


def step_seconds(train: Callable[[int, int], float], whole: int) -> tuple[float, str]:
    """Seconds of a step with `whole` images, and a note if fewer were timed and scaled up, because
    whole batches take too long. train: (images a step, steps) -> seconds.
    """

    def timed(size: int, steps: int) -> float:
        """Of a step after the first, which computes what the others read."""
        first = train(size, 1)
        return max(train(size, 1 + steps) - first, 1e-6) / steps

    size = 2
    step_s = train(size, 1)  # with the warm-up
    if step_s < PATIENCE_S / 2:
        step_s = timed(size, 1)
        size = min(whole, max(2, 2 * int(PATIENCE_S / (STEPS * step_s))))
        step_s = timed(size, max(1, min(STEPS, int(PATIENCE_S / (step_s * size / 2)))))
    note = "" if size == whole else f" with {size} images, scaled to {whole}"
    return step_s * whole / size, note


def _random_images(spec: DetectorSpec, classes: int) -> tuple[ImageStore, Annotations]:
    """A batch and one more, at training size, with BOXES random boxes each."""
    rng = np.random.default_rng(0)
    count, side = spec.batch + 1, spec.size
    ids = tuple(f"img_{number:020x}" for number in range(count))
    store = ImageStore(
        ids,
        rng.integers(0, 256, (count, 3, side, side), np.uint8),
        np.full((count, 2), float(side)),
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


def _class_names(classes: int) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(classes))

"""Two ports on one device: the task detector, and the trainer of proxies that resemble it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any

import numpy as np
import torch

from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors import DETECTORS, OBJECTIVES
from mgral_service.detectors.bank import FeatureBank
from mgral_service.detectors.batches import Batch, TrainingSet, draw_batches
from mgral_service.detectors.consistency import ConsistencyLoss
from mgral_service.detectors.fit import Recipe, TrainingDiverged, fit
from mgral_service.detectors.net import DetectorNet, Targets, computes_in_bf16
from mgral_service.detectors.observe import LOOSE, Suppression, observe
from mgral_service.detectors.weights import read_weights
from mgral_service.detectors.winograd import speed_up
from mgral_service.domain.boxes import Annotations, PoolObservation
from mgral_service.domain.curve import extrapolated
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import NOTHING, Report, RewardMetric, Weights
from mgral_service.domain.records import Progress, ProxyResult, ProxySpec, Status
from mgral_service.domain.specs import DetectorSpec, TableSpec

LAST_PART = 0.2  # of a run, over which checkpoints are spread


def build(spec: DetectorSpec, classes: Sequence[str], device: torch.device) -> DetectorNet:
    """The network that `spec` names, on the device and with its initial weights of seed 0.

    In precision "auto" an ssd300 computes by Winograd's algorithm on processors without bf16.
    """
    net = DETECTORS[spec.name](len(classes), spec.size, spec.freeze_backbone)
    if spec.weights is not None:
        net.load_pretrained(read_weights(spec.weights))
    net.initialise(0)
    cpu = device.type == "cpu"
    if net.winograd and cpu and spec.precision == "auto" and not computes_in_bf16("cpu"):
        speed_up(net)
    return net.to(device).to(memory_format=torch.channels_last)


def training_set(
    images: ImageStore, truth: Annotations, batch: Sequence[str], device: torch.device
) -> TrainingSet:
    """The images of `truth` with its boxes (original pixels), and those of `batch` without any.

    Ids are sorted, so the same images train the same weights in whatever order they are named.
    """
    labelled, unlabelled = sorted(truth.ids), sorted(batch)
    return TrainingSet(
        torch.from_numpy(images.pixels[images.rows(labelled)]).to(device),
        Targets.of(images.scale(truth), labelled, device),
        torch.from_numpy(images.pixels[images.rows(unlabelled)]).to(device),
    )


class TaskDetector:
    """ports.Detector: supervised training, then observation and scoring with the averaged weights.

    `images` holds every image it will meet; annotations and detections are in original pixels.
    """

    def __init__(
        self,
        spec: DetectorSpec,
        classes: Sequence[str],
        images: ImageStore,
        metric: RewardMetric,
        seed: int,
        device: str = "cpu",
    ) -> None:
        self._spec, self._images, self._metric, self._seed = spec, images, metric, seed
        self._device = torch.device(device)
        self._net = build(spec, classes, self._device)

    def fit(self, train: Annotations, report: Report) -> None:
        """From the initial weights; InvalidInput without an image, TrainingDiverged for a loss that
        is not finite.
        """
        spec = self._spec
        data = training_set(self._images, train, (), self._device)
        self._net.initialise(self._seed)
        fit(
            self._net,
            draw_batches(data, spec.batch, self._seed),
            Recipe.of(spec, spec.steps),
            lambda step, loss: report(
                Progress(Status.FITTING.value, step, spec.steps, {"loss": loss})
            ),
        )

    def observe(self, ids: Sequence[str], report: Report) -> PoolObservation:
        """Detections of probability .05 or more, for strategies and people to look at."""

        def tell(done: int) -> None:
            report(Progress(Status.OBSERVING.value, done, len(ids)))

        self._net.eval()
        precision = self._spec.precision
        return observe(self._net, self._images, ids, Suppression(), tell, precision=precision)

    def score(self, truth: Annotations) -> float:
        self._net.eval()
        seen = observe(self._net, self._images, truth.ids, LOOSE, precision=self._spec.precision)
        return self._metric(seen.detections, truth)

    def state(self) -> Mapping[str, np.ndarray[Any, Any]]:
        return {name: value.cpu().numpy().copy() for name, value in self._net.state_dict().items()}


class LocalProxyTrainer:
    """ports.ProxyTrainer: one proxy after the other. A result depends on its ProxySpec and on
    `starts` alone.

    annotations  of the labelled and the scoring images at least, original pixels
    scoring      ids that score proxies, those of which train one excepted (ProxySpec.scoring)
    """

    def __init__(
        self,
        detector: DetectorSpec,
        table: TableSpec,
        classes: Sequence[str],
        images: ImageStore,
        annotations: Annotations,
        scoring: Sequence[str],
        metric: RewardMetric,
        device: str = "cpu",
    ) -> None:
        self._spec, self._table, self._images, self._metric = detector, table, images, metric
        until = None if table.stop == 1 else max(1, round(table.stop * table.steps))
        recipe = Recipe.of(detector, table.steps, until, table.average)
        self._recipe = replace(recipe, learning_rate=table.rate * detector.learning_rate)
        self._pauses = pauses(table)
        self._objective: ConsistencyLoss = OBJECTIVES[table.objective]()
        self._annotations = annotations
        self._scoring = tuple(scoring)
        self._device = torch.device(device)
        self._net = build(detector, classes, self._device)
        self._bank = None
        if table.views:
            self._bank = FeatureBank(self._net, images, annotations, table.views)

    def train(
        self, specs: Sequence[ProxySpec], starts: Mapping[int, Weights] = NOTHING
    ) -> Iterator[ProxyResult]:
        """In the order given. A proxy whose loss is no number gives a result without score; other
        errors rise.
        """
        for spec in specs:
            began = monotonic()
            score, cause = None, None
            try:
                seeds = range(spec.seed, spec.seed + self._table.repeats)
                start = starts.get(spec.rotation)
                score = float(np.mean([self._score(replace(spec, seed=s), start) for s in seeds]))
            except TrainingDiverged as error:
                cause = str(error)
            yield ProxyResult(spec.index, score, monotonic() - began, cause)

    def _score(self, spec: ProxySpec, start: Weights | None) -> float:
        truth = self._annotations.subset(spec.scoring or self._scoring)
        both = {*truth.ids} & {*spec.labelled, *spec.batch}
        if both:
            raise InvalidInput(f"image {min(both)}", "trains a proxy and scores it: choose one")
        self._net.initialise(spec.seed)
        if start is not None:
            self._net.load_state_dict({name: torch.tensor(start[name]) for name in start})
        curve: list[tuple[int, float]] = []

        def look(step: int) -> None:
            curve.append((step, self._map(truth)))

        fit(
            self._net,
            self._batches(spec),
            self._recipe,
            lambda step, loss: None,
            self._objective if spec.batch else None,
            spec.seed,
            self._pauses,
            look,
        )
        look(self._recipe.until or self._recipe.steps)
        steps, maps = (np.array(column, dtype=np.float64) for column in zip(*curve, strict=True))
        if self._recipe.until is None:
            return float(maps.mean())
        return extrapolated(steps, maps, self._recipe.steps)

    def _batches(self, spec: ProxySpec) -> Iterator[Batch]:
        if self._bank is None:
            truth = self._annotations.subset(spec.labelled)
            data = training_set(self._images, truth, spec.batch, self._device)
            return draw_batches(data, self._spec.batch, spec.seed)
        labelled, batch = sorted(spec.labelled), sorted(spec.batch)
        return self._bank.draw_batches(labelled, batch, self._spec.batch, spec.seed)

    def _map(self, truth: Annotations) -> float:
        """mAP as the net stands, on the images of `truth`."""
        kept = None if self._bank is None else self._bank.plain
        seen = observe(
            self._net,
            self._images,
            truth.ids,
            LOOSE,
            features=kept,
            precision=self._spec.precision,
        )
        return self._metric(seen.detections, truth)


def pauses(table: TableSpec) -> tuple[int, ...]:
    """Steps before the end after which a proxy is scored as well."""
    if table.stop < 1:
        until = table.stop * table.steps
        return tuple(sorted({max(1, round(until * share)) for share in (0.5, 0.75)}))
    gap = LAST_PART * table.steps / max(1, table.checkpoints - 1)
    return tuple(max(1, round(table.steps - gap * at)) for at in range(1, table.checkpoints))

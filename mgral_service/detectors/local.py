"""Two ports on one device: the task detector, and the trainer of proxies that resemble it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from time import monotonic
from typing import Any

import numpy as np
import torch

from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors import DETECTORS, OBJECTIVES
from mgral_service.detectors.batches import TrainingSet, draw_batches
from mgral_service.detectors.fit import Recipe, TrainingDiverged, fit
from mgral_service.detectors.isd import ConsistencyLoss
from mgral_service.detectors.net import DetectorNet, Targets
from mgral_service.detectors.observe import LOOSE, Suppression, observe
from mgral_service.domain.boxes import Annotations, PoolObservation
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import Report, RewardMetric
from mgral_service.domain.records import Progress, ProxyResult, ProxySpec, Status
from mgral_service.domain.specs import DetectorSpec, TableSpec


def build(spec: DetectorSpec, classes: Sequence[str], device: torch.device) -> DetectorNet:
    """The network that `spec` names, on the device and with its initial weights of seed 0."""
    return DETECTORS[spec.name](len(classes), spec.size, spec.freeze_backbone).to(device)


def training_set(
    images: ImageStore, truth: Annotations, batch: Sequence[str], device: torch.device
) -> TrainingSet:
    """The images of `truth` with its boxes (original pixels), and those of `batch` without any.

    Ids are sorted, so the same images train the same weights in whatever order they are named.
    InvalidInput without a labelled image.
    """
    labelled, unlabelled = sorted(truth.ids), sorted(batch)
    if not labelled:
        raise InvalidInput("labelled", "a detector needs one labelled image at least")
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
            Recipe(spec.steps, spec.learning_rate),
            lambda step, loss: report(
                Progress(Status.FITTING.value, step, spec.steps, {"loss": loss})
            ),
        )

    def observe(self, ids: Sequence[str], report: Report) -> PoolObservation:
        """Detections of probability .05 or more, for strategies and people to look at."""

        def tell(done: int) -> None:
            report(Progress(Status.OBSERVING.value, done, len(ids)))

        self._net.eval()
        return observe(self._net, self._images, ids, Suppression(), tell)

    def score(self, truth: Annotations) -> float:
        self._net.eval()
        return score(self._net, self._images, truth, self._metric)

    def state(self) -> Mapping[str, np.ndarray[Any, Any]]:
        return {name: value.cpu().numpy() for name, value in self._net.state_dict().items()}


def score(net: DetectorNet, images: ImageStore, truth: Annotations, metric: RewardMetric) -> float:
    """mAP of `net` on the images of `truth`, with the tail of weak detections that mAP wants."""
    return metric(observe(net, images, truth.ids, LOOSE).detections, truth)


class LocalProxyTrainer:
    """ports.ProxyTrainer: one proxy after the other. A result depends on its ProxySpec alone.

    annotations  of the labelled and the scoring images at least, original pixels
    scoring      ids that score proxies; never trained on
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
        self._spec, self._images, self._metric = detector, images, metric
        self._recipe = Recipe(table.steps, detector.learning_rate)
        self._objective: ConsistencyLoss = OBJECTIVES[table.objective]()
        self._annotations = annotations
        self._truth = annotations.subset(scoring)
        self._device = torch.device(device)
        self._net = build(detector, classes, self._device)

    def train(self, specs: Sequence[ProxySpec]) -> Iterator[ProxyResult]:
        """In the order given. A proxy whose loss is no number gives a result without score; other
        errors rise.
        """
        for spec in specs:
            start = monotonic()
            score, cause = None, None
            try:
                score = self._score(spec)
            except TrainingDiverged as error:
                cause = str(error)
            yield ProxyResult(spec.index, score, monotonic() - start, cause)

    def _score(self, spec: ProxySpec) -> float:
        both = set(self._truth.ids) & {*spec.labelled, *spec.batch}
        if both:
            raise InvalidInput(f"image {min(both)}", "trains a proxy and scores it: choose one")
        truth = self._annotations.subset(spec.labelled)
        data = training_set(self._images, truth, spec.batch, self._device)
        self._net.initialise(spec.seed)
        fit(
            self._net,
            draw_batches(data, self._spec.batch, spec.seed),
            self._recipe,
            lambda step, loss: None,
            self._objective if spec.batch else None,
            spec.seed,
        )
        return score(self._net, self._images, self._truth, self._metric)

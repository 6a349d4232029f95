"""Two ports on one device: the task detector, and the trainer of proxies that resemble it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import monotonic

import numpy as np
import torch

from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors import DETECTORS, build_objective, objective_of
from mgral_service.detectors.batches import Batch, draw_batches
from mgral_service.detectors.feature_cache import FeatureCache
from mgral_service.detectors.fit import TrainingDiverged, fit
from mgral_service.detectors.net import DetectorNet, NetInput, computes_in_bf16
from mgral_service.detectors.predict import LOOSE, Suppression, predict
from mgral_service.detectors.weights import read_weights
from mgral_service.detectors.winograd import speed_up
from mgral_service.domain.boxes import Annotations, PoolPredictions
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import NOTHING, Report, RewardMetric, Weights
from mgral_service.domain.records import Progress, ProxyResult, ProxySpec, Status
from mgral_service.domain.specs import DetectorSpec, TableSpec

Draw = Callable[[Annotations, Sequence[str], int, int], Iterator[Batch]]
"""Batches of annotated and unlabelled images, by size and seed."""

FeaturesOf = Callable[[Sequence[str]], NetInput]
"""Of images by id."""


def build(spec: DetectorSpec, classes: Sequence[str], device: torch.device) -> DetectorNet:
    """The network that `spec` names, on the device and with its initial weights of seed 0.

    In precision "auto", on processors without bf16, a net may compute by Winograd's algorithm.
    """
    net = DETECTORS[spec.name].build(len(classes), spec.size, spec.freeze_backbone)
    if spec.weights is not None:
        net.load_pretrained(read_weights(spec.weights))
    cpu = device.type == "cpu"
    if net.winograd and cpu and spec.advanced.precision == "auto" and not computes_in_bf16("cpu"):
        speed_up(net)
    return net.to(device).to(memory_format=torch.channels_last)


def _inputs(
    net: DetectorNet, images: ImageStore, augmentations: int
) -> tuple[Draw, FeaturesOf | None]:
    """What draws batches, and what gives features to predict from: None where none are kept."""
    if net.freeze and augmentations:
        cache = FeatureCache(net, images, augmentations)
        return cache.draw_batches, cache.plain
    return partial(draw_batches, images, net.anchors.device), None


class TaskDetector:
    """ports.Detector: supervised training, then predictions and scoring with the averaged weights.

    `images` holds every image it will meet; annotations and detections are in original pixels.
    Where detector.advanced.augmentations applies, features are kept from one call to the next.
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
        self._net = build(spec, classes, torch.device(device))
        self._draw, self._features = _inputs(self._net, images, spec.advanced.augmentations)

    def fit(self, train: Annotations, report: Report) -> None:
        """From the initial weights. InvalidInput without an image; TrainingDiverged."""
        spec = self._spec
        self._net.initialise(self._seed)
        fit(
            self._net,
            self._draw(train, (), spec.batch, self._seed),
            spec,
            lambda step, loss: report(
                Progress(Status.FITTING.value, step, spec.steps, {"loss": loss})
            ),
        )

    def predict(self, ids: Sequence[str], report: Report) -> PoolPredictions:
        """Sorted by id; detections of probability .05 or more, for strategies and people."""
        return self._predict(
            sorted(ids),
            Suppression(),
            lambda done: report(Progress(Status.PREDICTING.value, done, len(ids))),
        )

    def score(self, truth: Annotations) -> float:
        """mAP of the fitted detector on these images, a fraction."""
        return self._metric(self._predict(truth.ids, LOOSE).detections, truth)

    def state(self) -> Weights:
        """A copy of the weights by name."""
        return {name: value.cpu().numpy().copy() for name, value in self._net.state_dict().items()}

    def _predict(
        self, ids: Sequence[str], rule: Suppression, progress: Callable[[int], None] | None = None
    ) -> PoolPredictions:
        self._net.eval()
        precision = self._spec.advanced.precision
        return predict(self._net, self._images, ids, rule, progress, self._features, precision)


def fold_spec(detector: DetectorSpec, table: TableSpec) -> DetectorSpec:
    """Of the detectors of folds: the task detector's, on kept features where proxies use them."""
    views = detector.advanced.augmentations or table.advanced.augmentations
    if not detector.freeze_backbone:
        return detector
    return replace(detector, advanced=replace(detector.advanced, augmentations=views))


class LocalProxyTrainer:
    """ports.ProxyTrainer: one proxy after the other. A result depends on its ProxySpec and on
    `starts` alone.

    annotations  of the labelled and the scoring images at least, original pixels
    """

    def __init__(
        self,
        detector: DetectorSpec,
        table: TableSpec,
        classes: Sequence[str],
        images: ImageStore,
        annotations: Annotations,
        metric: RewardMetric,
        device: str = "cpu",
    ) -> None:
        advanced = table.advanced
        rate = advanced.rate * detector.learning_rate
        self._spec = replace(detector, steps=table.steps, learning_rate=rate)
        self._repeats, self._images, self._metric = advanced.repeats, images, metric
        self._annotations = annotations
        self._objective = build_objective(objective_of(detector, table))
        self._net = build(detector, classes, torch.device(device))
        self._anew = _inputs(self._net, images, 0)
        self._cached = _inputs(self._net, images, advanced.augmentations)

    def train(
        self, specs: Sequence[ProxySpec], starts: Mapping[int | None, Weights] = NOTHING
    ) -> Iterator[ProxyResult]:
        """In the order given; without score if the loss is no number. Other errors rise."""
        for spec in specs:
            began = monotonic()
            score, cause = None, None
            try:
                seeds = range(spec.seed, spec.seed + self._repeats)
                score = float(np.mean([self._score(spec, seed, starts) for seed in seeds]))
            except TrainingDiverged as error:
                cause = str(error)
            yield ProxyResult(spec.index, score, monotonic() - began, cause)

    def _score(self, spec: ProxySpec, seed: int, starts: Mapping[int | None, Weights]) -> float:
        both = {*spec.scoring} & {*spec.labelled, *spec.unlabelled}
        if both:
            raise InvalidInput(f"image {min(both)}", "trains a proxy and scores it: choose one")
        self._net.initialise(seed)
        if spec.fold in starts:
            start = starts[spec.fold]
            self._net.load_state_dict({name: torch.tensor(start[name]) for name in start})
        needs_images = spec.unlabelled and self._objective.makes_images
        draw, features = self._anew if needs_images else self._cached
        truth = self._annotations.subset(spec.labelled)
        fit(
            self._net,
            draw(truth, spec.unlabelled, self._spec.batch, seed),
            self._spec,
            lambda step, loss: None,
            self._objective if spec.unlabelled else None,
            seed,
        )
        precision = self._spec.advanced.precision
        predictions = predict(
            self._net, self._images, spec.scoring, LOOSE, features=features, precision=precision
        )
        return self._metric(predictions.detections, self._annotations.subset(spec.scoring))

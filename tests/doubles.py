"""In-memory doubles of the ports that need training: fast, deterministic, with a known answer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from mgral_service.domain.boxes import Annotations, Detections, PoolPredictions
from mgral_service.domain.ports import NOTHING, Report, Weights
from mgral_service.domain.records import ProxyResult, ProxySpec

CLASSES = ("cat", "dog", "owl")


def ids(count: int, prefix: str = "img_") -> tuple[str, ...]:
    return tuple(f"{prefix}{number:020x}" for number in range(count))


def predictions(image_ids: Sequence[str], seed: int = 0, dim: int = 8) -> PoolPredictions:
    """Embeddings that follow from each id alone, one to three boxes an image."""
    image_ids = sorted(image_ids)
    rngs = [np.random.default_rng([seed, *image_id.encode()]) for image_id in image_ids]
    embeddings = np.stack([rng.normal(size=dim) for rng in rngs])
    counts = [int(rng.integers(1, 4)) for rng in rngs]
    image = np.repeat(np.arange(len(image_ids)), counts)
    logits = np.concatenate(
        [
            rng.normal(size=(count, len(CLASSES) + 1))
            for rng, count in zip(rngs, counts, strict=True)
        ]
    )
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = probs[:, 1:].argmax(axis=1)
    boxes = np.tile([4.0, 4.0, 20.0, 20.0], (len(image), 1))
    scores = probs[np.arange(len(image)), labels + 1]
    detections = Detections(tuple(image_ids), image, boxes, labels, scores, probs)
    return PoolPredictions(tuple(image_ids), embeddings, detections)


class FakeDetector:
    """Counts its fits; its mAP is 0.2 and a hundredth for each image it was trained on."""

    def __init__(self) -> None:
        self.fits: list[tuple[str, ...]] = []

    def fit(self, train: Annotations, report: Report) -> None:
        self.fits.append(train.ids)

    def predict(self, ids: Sequence[str], report: Report) -> PoolPredictions:
        return predictions(ids)

    def score(self, truth: Annotations) -> float:
        return 0.2 + 0.01 * len(self.fits[-1])

    def state(self) -> Mapping[str, np.ndarray[Any, Any]]:
        return {"weight": np.full(3, len(self.fits[-1]), dtype=np.float32)}


class FakeProxies:
    """A proxy's mAP is .3 plus a tenth of the mean first embedding component of its batch.

    Proxies whose index is in `bad` fail; after `dies_after` results the trainer raises. `specs` are
    the proxies by index, `starts` the weights that were handed over last.
    """

    def __init__(self, bad: frozenset[int] = frozenset(), dies_after: int | None = None) -> None:
        self.trained: list[int] = []
        self.specs: dict[int, ProxySpec] = {}
        self.starts: Mapping[int | None, Weights] = NOTHING
        self._bad, self._dies_after = bad, dies_after

    def train(
        self, specs: Sequence[ProxySpec], starts: Mapping[int | None, Weights] = NOTHING
    ) -> Iterator[ProxyResult]:
        self.starts = starts
        for spec in specs:
            if self._dies_after is not None and len(self.trained) >= self._dies_after:
                raise KeyboardInterrupt
            self.trained.append(spec.index)
            self.specs[spec.index] = spec
            if spec.index in self._bad:
                yield ProxyResult(spec.index, None, 0.1, "made to fail")
            else:
                gain = predictions(spec.batch).embeddings[:, 0].mean()
                yield ProxyResult(spec.index, float(0.3 + 0.1 * gain), 0.1)

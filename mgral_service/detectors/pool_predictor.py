"""A detector inside an actor of a cluster, for image files that come a batch at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mgral_service.datasets.images import decode_image, squeezed
from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors.local import build
from mgral_service.detectors.predict import Suppression, predict
from mgral_service.domain.boxes import PoolPredictions
from mgral_service.domain.ports import Weights
from mgral_service.domain.specs import DetectorSpec

Squeezed = tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], tuple[int, int]]
"""Pixels [3, S, S] and the size (width, height) of the original."""


class PoolPredictor:
    """Predicts what `TaskDetector.predict` does with the same weights."""

    def __init__(
        self, spec: DetectorSpec, classes: Sequence[str], weights: Weights, device: str = "cpu"
    ) -> None:
        self._spec = spec
        self._net = build(spec, classes, torch.device(device))
        self._net.load_state_dict({name: torch.tensor(weights[name]) for name in weights})
        self._net.eval()

    def decode(self, data: bytes, uri: str) -> Squeezed:
        """InvalidInput, with the URI, for what is no image."""
        image = decode_image(data, uri)
        return squeezed(image, self._spec.size), image.size

    def predict(self, ids: Sequence[str], images: Sequence[Squeezed]) -> PoolPredictions:
        """In the order given: `ids` may be a part of a pool that is sorted as a whole later."""
        side = self._spec.size
        pixels = np.array([image for image, _ in images], np.uint8).reshape(-1, 3, side, side)
        sizes = np.array([size for _, size in images], np.float64).reshape(-1, 2)
        store = ImageStore(tuple(ids), pixels, sizes)
        precision = self._spec.advanced.precision
        return predict(self._net, store, ids, Suppression(), precision=precision)

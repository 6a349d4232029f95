"""What a batch is like, in a few dozen numbers: what value models read instead of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from mgral_service.domain.acquisition import class_evidence, image_entropy, nearest_distance
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Detections, PoolObservation
from mgral_service.domain.transport import standardise

COMPONENTS = 16
_REFERENCES = 128  # images of the pool whose distance to the batch measures coverage
_SEED = 7919  # of the choice of references; part of the feature's meaning


@dataclass(frozen=True, slots=True, eq=False)
class ImageColumns:
    """Per-image numbers of an observation's N images, all finite.

    points       [N, D] standardised embeddings
    components   [N, P] their principal components, unit variance for the first one
    uncertainty  [N, 3] entropy of the detections: mean, max, log(1 + sum)
    novelty      [N] distance to the nearest labelled image, standardised embedding units
    evidence     [N, C] expected objects of each class
    """

    points: FloatArray
    components: FloatArray
    uncertainty: FloatArray
    novelty: FloatArray
    evidence: FloatArray


def aligned_detections(observation: PoolObservation) -> Detections:
    """The observation's detections with images in the order of its ids."""
    found = observation.detections
    return found if found.ids == observation.ids else found.subset(observation.ids)


def image_columns(
    observation: PoolObservation, labelled: IntArray, classes: int | None = None
) -> ImageColumns:
    """Columns of all images; `labelled` are positions; `classes` None: as many as the detections
    have.
    """
    detections = aligned_detections(observation)
    if classes is None:
        classes = max(detections.probs.shape[1] - 1, 0) if detections.probs.ndim == 2 else 0
    points = standardise(observation.embeddings)
    entropy = image_entropy(detections)
    return ImageColumns(
        points,
        principal_components(points, COMPONENTS),
        np.stack([entropy.mean, entropy.max, np.log1p(entropy.sum)], axis=1),
        nearest_distance(points, points[labelled]),
        class_evidence(detections, classes),
    )


def principal_components(points: FloatArray, count: int) -> FloatArray:
    """[N, P] scores of centred points [N, D] on their P = min(count, D, N - 1, rank) first axes.

    All are divided by the first one's standard deviation, so their proportions stay; signs are
    fixed by making each axis' largest entry positive.
    """
    centred = points - points.mean(axis=0)
    values, axes = np.linalg.eigh(centred.T @ centred / max(len(points), 1))
    first = np.arange(len(values))[::-1][: max(0, min(count, len(values), len(points) - 1))]
    first = first[values[first] > 1e-9 * max(float(values.max(initial=0.0)), 1e-300)]
    if not len(first):
        return np.zeros((len(points), 0))
    chosen = axes[:, first]
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(len(first))])
    return np.asarray(centred @ chosen / np.sqrt(values[first[0]]))


class BatchFeatures:
    """Features [F] of a batch of an observation's images; `names` [F] says what they are.

    Additive ones are means over the batch of per-image numbers (components, uncertainty, novelty).
    The class histogram is ln(1 + expected objects in labelled images and batch), class by class;
    `spread` is the variance of the components within the batch; `coverage` the mean distance from a
    sample of the pool to its nearest image of labelled and batch together.
    """

    def __init__(
        self, observation: PoolObservation, labelled: IntArray, classes: Sequence[str]
    ) -> None:
        columns = image_columns(observation, labelled, len(classes))
        self.columns = columns
        self._images = np.concatenate(
            [columns.components, columns.uncertainty, columns.novelty[:, None]], axis=1
        )
        self._energy = (columns.components**2).sum(axis=1)
        self._paid = columns.evidence[labelled].sum(axis=0)
        total = len(observation.ids)
        sample = np.random.default_rng(_SEED).permutation(total)[:_REFERENCES]
        references = columns.points[sample]
        self._reach = cdist(columns.points, references).astype(np.float32)
        self._before = (
            self._reach[labelled].min(axis=0)
            if len(labelled)
            else np.full(len(sample), np.inf, dtype=np.float32)
        )
        self.names = (
            *(f"component {at + 1}" for at in range(columns.components.shape[1])),
            *("entropy mean", "entropy max", "entropy sum", "novelty"),
            *(f"objects of {name}" for name in classes),
            *("spread", "coverage"),
        )

    def __call__(self, batches: Sequence[IntArray]) -> FloatArray:
        """[K, F] of batches, each an array of positions of one image or more."""
        sizes = np.array([len(batch) for batch in batches], dtype=np.int64)
        if not len(sizes) or sizes.min() < 1:
            raise ValueError("features need one batch or more, of one image or more each")
        rows = np.concatenate(batches)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        means = np.add.reduceat(self._images[rows], starts) / sizes[:, None]
        objects = np.add.reduceat(self.columns.evidence[rows], starts)
        energy = np.add.reduceat(self._energy[rows], starts) / sizes
        centre = means[:, : self.columns.components.shape[1]]
        reach = np.minimum(np.minimum.reduceat(self._reach[rows], starts), self._before)
        return np.concatenate(
            [
                means,
                np.log1p(self._paid + objects),
                (energy - (centre**2).sum(axis=1))[:, None],
                reach.mean(axis=1, dtype=np.float64)[:, None],
            ],
            axis=1,
        )

    def linear_values(self, weights: FloatArray, size: int) -> FloatArray:
        """[N] what each image adds by a linear model's `weights` [F], up to a constant.

        Exact for the additive features; the class histogram is linearised at an average batch of
        `size` images; spread and coverage have no per-image part.
        """
        additive = self._images.shape[1]
        evidence = self.columns.evidence
        typical = 1.0 + self._paid + size * evidence.mean(axis=0)
        by_class = weights[additive : additive + evidence.shape[1]] * size / typical
        return np.asarray(self._images @ weights[:additive] + evidence @ by_class)

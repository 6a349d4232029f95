"""What a batch is like, in a few dozen numbers: what value models read instead of the images."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.spatial.distance import cdist

from mgral_service.domain.acquisition import class_evidence, image_entropy, nearest_distance
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Detections, PoolObservation
from mgral_service.domain.specs import AgentState
from mgral_service.domain.transport import standardise

COMPONENTS = 64
WORDS = 16
COMPONENT, WORD, CLASS, CLASS_COVERAGE, OTHER = range(5)  # kinds of features
_REFERENCES = 128  # images of the pool whose distance to the batch measures coverage
_SEED = 7919  # of references and words; part of the features' meaning
_TYPICAL = 128  # batches that stand for a uniform one


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
    return ImageColumns(
        points,
        principal_components(points, COMPONENTS),
        _uncertainty(detections),
        nearest_distance(points, points[labelled]),
        class_evidence(detections, classes),
    )


def detection_state(observation: PoolObservation, classes: int) -> FloatArray:
    """[N, classes + 3] what the detections say of each image, not yet standardised: log(1 +
    expected objects) of each class; entropy: mean, max, log(1 + sum).
    """
    found = aligned_detections(observation)
    return np.concatenate([np.log1p(class_evidence(found, classes)), _uncertainty(found)], axis=1)


def agent_state(observation: PoolObservation, classes: int, kind: AgentState) -> FloatArray:
    """[N, S] what the policy sees of each image (AgentSpec.state), not yet standardised. Nothing in
    it depends on which images are labelled, so that it can be seen image by image.
    """
    if kind == "embedding":
        return observation.embeddings
    return np.concatenate([observation.embeddings, detection_state(observation, classes)], axis=1)


def _uncertainty(detections: Detections) -> FloatArray:
    entropy = image_entropy(detections)
    return np.stack([entropy.mean, entropy.max, np.log1p(entropy.sum)], axis=1)


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


def visual_words(components: FloatArray) -> FloatArray:
    """[N, W] membership in the clusters of the components [N, P]: W = min(WORDS, N / 4) at most."""
    count = min(WORDS, len(components) // 4)
    if count < 2 or not components.shape[1]:
        return np.zeros((len(components), 0))
    source = np.random.default_rng(_SEED)
    centres, _ = kmeans2(components, count, iter=20, minit="++", seed=source, missing="warn")
    nearest = cdist(components, centres).argmin(axis=1)
    words = np.eye(count)[nearest]
    return np.asarray(words[:, words.any(axis=0)])


class BatchFeatures:
    """Features [F] of a batch of an observation's images beside labelled ones; `names` [F] says
    what they are, `kinds` [F] which belong together.

    Additive ones are means over the batch of per-image numbers (components, visual words,
    uncertainty, novelty). The class histogram saturates: 1 - exp(-objects in labelled images and
    batch / those that a uniform batch would give), class by class, and their mean, the class
    coverage. `spread` is the variance of the components within the batch; `coverage` the mean
    distance from a sample of the pool to its nearest image of labelled and batch together.
    """

    def __init__(
        self, observation: PoolObservation, labelled: IntArray, classes: Sequence[str]
    ) -> None:
        columns = image_columns(observation, labelled, len(classes))
        self.columns = columns
        words = visual_words(columns.components)
        self._static = np.concatenate([columns.components, words, columns.uncertainty], axis=1)
        self._energy = (columns.components**2).sum(axis=1)
        total = len(observation.ids)
        sample = np.random.default_rng(_SEED).permutation(total)[:_REFERENCES]
        self._reach = cdist(columns.points, columns.points[sample]).astype(np.float32)
        self.names = (
            *(f"component {at + 1}" for at in range(columns.components.shape[1])),
            *(f"visual word {at + 1}" for at in range(words.shape[1])),
            *("entropy mean", "entropy max", "entropy sum", "novelty"),
            *(f"objects of {name}" for name in classes),
            *("class coverage", "spread", "coverage"),
        )
        sizes = {
            COMPONENT: columns.components.shape[1],
            WORD: words.shape[1],
            OTHER: 4,
            CLASS: len(classes),
            CLASS_COVERAGE: 1,
        }
        self.kinds: IntArray = np.repeat([*sizes, OTHER], [*sizes.values(), 2])
        self._usual = columns.evidence.mean(axis=0)
        self._stand_beside(labelled, columns.novelty)

    def beside(self, labelled: IntArray) -> Self:
        """The same features of batches beside other labelled images (positions)."""
        other = copy(self)
        points = self.columns.points
        other._stand_beside(labelled, nearest_distance(points, points[labelled]))
        return other

    def _stand_beside(self, labelled: IntArray, novelty: FloatArray) -> None:
        self.labelled = labelled
        self._images = np.concatenate([self._static, novelty[:, None]], axis=1)
        self._paid = self.columns.evidence[labelled].sum(axis=0)
        self._before = (
            self._reach[labelled].min(axis=0)
            if len(labelled)
            else np.full(self._reach.shape[1], np.inf, dtype=np.float32)
        )

    def typical(self, size: int) -> FloatArray:
        """[F] expected of a uniform batch of `size` images that are not labelled."""
        pool = np.setdiff1d(np.arange(len(self._images)), self.labelled)
        rng = np.random.default_rng(_SEED)
        count = min(_TYPICAL, max(8, _TYPICAL**2 // size))  # of large ones fewer tell as much
        batches = [rng.permutation(pool)[:size] for _ in range(count)]
        return np.asarray(self(batches).mean(axis=0))

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
        seen = 1.0 - np.exp(-(self._paid + objects) / self._expected(sizes[:, None]))
        return np.concatenate(
            [
                means,
                seen,
                seen.sum(axis=1, keepdims=True) / max(seen.shape[1], 1),
                (energy - (centre**2).sum(axis=1))[:, None],
                reach.mean(axis=1, dtype=np.float64)[:, None],
            ],
            axis=1,
        )

    def linear_values(self, weights: FloatArray, size: int, begun: IntArray) -> FloatArray:
        """[N] what each image adds, by a linear model's `weights` [F] and up to a constant, to a
        batch that will have `size` images and so far has those at `begun`.

        Exact for the additive features; the class histogram is linearised; spread and coverage have
        no per-image part.
        """
        additive = self._images.shape[1]
        evidence = self.columns.evidence
        classes = evidence.shape[1]
        expected = self._expected(size)
        objects = self._paid + evidence[begun].sum(axis=0)
        slope = np.exp(-objects / expected) * size / expected
        shared = weights[additive + classes] / max(classes, 1)
        by_class = (weights[additive : additive + classes] + shared) * slope
        return np.asarray(self._images @ weights[:additive] + evidence @ by_class)

    def _expected(self, size: IntArray | int) -> FloatArray:
        """[..., C] objects in labelled images and a uniform batch of `size` [...], and one more."""
        return np.asarray(1.0 + self._paid + size * self._usual)

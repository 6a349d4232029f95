"""What a batch is like, in a dozen numbers that mean the same in every pool.

They are read off the predictions of one candidate pool. A value model that learned from batches of
some folds can therefore estimate a batch of another fold, or of the pool.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from mgral_service.domain.acquisition import expected_objects, image_entropy
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Detections, PoolPredictions
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.specs import AgentState

NAMES = (
    "entropy_mean",
    "entropy_max",
    "entropy_sum",
    "entropy_root",
    "expected_objects",
    "confidence",
    "novelty",
    "rarity",
    "class_deficit",
    "class_coverage",
    "diversity",
    "pool_coverage",
)
"""Names of the features, in their order.

The first eight are means over the batch of an image's percentile rank among the candidates:
entropy of its detections (mean, max, sum, and mean times the root of the expected objects), its
expected objects, the score of its surest detection, its distance to the nearest labelled image, and
what it adds to the balance of classes: sum over classes of log(1 + its objects / (labelled objects
+ 1)). Of the whole batch:

class_deficit   mean over classes of log(1 + objects of the batch / (labelled objects + 1))
class_coverage  mean over classes of min(1, objects of the batch / an even share of them)
diversity       variance of its embeddings over that of the candidates
pool_coverage   1 - mean distance of a sample of the candidates to the nearest labelled or chosen
                image, over that to the nearest labelled one
"""

_REFERENCES = 128  # candidates whose distance to the batch measures coverage
_UNIFORM = 64  # uniform batches whose mean is the zero of the features
_SEED = 7919  # of references and uniform batches


class BatchFeatures:
    """Features [K, 12] of batches of a candidate pool, less those expected of a uniform batch."""

    def __init__(self, pool: CandidatePool) -> None:
        self._pool = pool
        objects = pool.expected_objects
        self._before = 1.0 + objects[pool.labelled].sum(axis=0)
        columns = (
            pool.entropy.mean,
            pool.entropy.max,
            pool.entropy.sum,
            pool.entropy.mean * np.sqrt(objects.sum(axis=1)),
            objects.sum(axis=1),
            _surest(pool.predictions.detections),
            pool.novelty,
            np.log1p(objects / self._before).sum(axis=1),
        )
        self._ranks = np.zeros((len(pool.ids), len(columns)))
        self._ranks[pool.candidates] = np.column_stack(
            [_percentiles(column[pool.candidates]) for column in columns]
        )
        rng = np.random.default_rng(_SEED)
        sample = rng.permutation(pool.candidates)[:_REFERENCES]
        self._reach = cdist(pool.points, pool.points[sample])
        labelled = self._reach[pool.labelled]
        self._reach_before = (
            labelled.min(axis=0) if len(labelled) else np.linalg.norm(pool.points[sample], axis=1)
        )
        self._energy = (pool.points**2).sum(axis=1)
        self._variance = max(float(pool.points[pool.candidates].var(axis=0).sum()), 1e-12)
        self._uniform: dict[int, FloatArray] = {}

    def __call__(self, batches: Sequence[IntArray]) -> FloatArray:
        """[K, 12] of batches of one image or more, positions in the pool."""
        raw = self._raw(batches)
        zeros = [self._expected(len(batch)) for batch in batches]
        return np.asarray(raw - np.stack(zeros))

    def _expected(self, size: int) -> FloatArray:
        """[12] mean of uniform batches of `size` candidates."""
        if size not in self._uniform:
            rng = np.random.default_rng(_SEED)
            batches = [rng.permutation(self._pool.candidates)[:size] for _ in range(_UNIFORM)]
            self._uniform[size] = self._raw(batches).mean(axis=0)
        return self._uniform[size]

    def _raw(self, batches: Sequence[IntArray]) -> FloatArray:
        sizes = np.array([[len(batch)] for batch in batches])
        rows = np.concatenate(batches)
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        objects = np.add.reduceat(self._pool.expected_objects[rows], starts)
        even = np.maximum(objects.sum(axis=1, keepdims=True) / max(objects.shape[1], 1), 1e-12)
        centre = np.add.reduceat(self._pool.points[rows], starts) / sizes
        energy = np.add.reduceat(self._energy[rows], starts) / sizes[:, 0]
        reach = np.minimum(np.minimum.reduceat(self._reach[rows], starts), self._reach_before)
        return np.column_stack(
            [
                np.add.reduceat(self._ranks[rows], starts) / sizes,
                np.log1p(objects / self._before).mean(axis=1),
                np.minimum(1.0, objects / even).mean(axis=1),
                (energy - (centre**2).sum(axis=1)) / self._variance,
                1.0 - reach.mean(axis=1) / max(float(self._reach_before.mean()), 1e-12),
            ]
        )


def _percentiles(column: FloatArray) -> FloatArray:
    """[U] ranks in (0, 1), ties alike; a half each where all are equal."""
    return np.asarray((rankdata(column) - 0.5) / max(len(column), 1))


def _surest(detections: Detections) -> FloatArray:
    """[N] score of each image's surest detection; 0 without any."""
    scores = np.zeros(len(detections.ids))
    np.maximum.at(scores, detections.image, detections.scores)
    return scores


def agent_state(predictions: PoolPredictions, classes: int, kind: AgentState) -> FloatArray:
    """[N, S] what the policy reads of each image (AgentAdvanced.state), not yet standardised.
    Nothing in it depends on which images are labelled, so it can be computed image by image.

    "full": the embedding, log(1 + expected objects) of each class, and the entropy of the
    detections: mean, max, log(1 + sum).
    """
    if kind == "embedding":
        return predictions.embeddings
    entropy = image_entropy(predictions.detections)
    return np.column_stack(
        [
            predictions.embeddings,
            np.log1p(expected_objects(predictions.detections, classes)),
            entropy.mean,
            entropy.max,
            np.log1p(entropy.sum),
        ]
    )

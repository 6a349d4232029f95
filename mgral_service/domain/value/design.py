"""Batches that fill the table: uniform ones, and ones tilted along random directions."""

from __future__ import annotations

import numpy as np
from scipy.stats import ortho_group

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.candidate_pool import CandidatePool

TILT = 4.0  # tau, standard deviations of a tilt's score
OTHER_WEIGHT = 0.5  # of what is no component of the embeddings, in a tilt's direction
COMPONENTS = 64


def uniform_batches(pool: CandidatePool, count: int, rng: np.random.Generator) -> list[IntArray]:
    """`count` batches of pool.batch_size candidates, uniform at random without replacement."""
    return [rng.permutation(pool.candidates)[: pool.batch_size] for _ in range(count)]


def tilted_batches(pool: CandidatePool, count: int, rng: np.random.Generator) -> list[IntArray]:
    """`count` batches of pool.batch_size candidates, each drawn in proportion to exp(score).

    The scores, of spread TILT, follow random directions of the embeddings' first components and of
    expected objects, entropies and novelty. The directions are orthogonal as long as there are any
    left, so that a table tells as many effects apart as it has records.
    """
    entropy = pool.entropy
    other = np.column_stack(
        [
            np.log1p(pool.expected_objects),
            entropy.mean,
            entropy.max,
            np.log1p(entropy.sum),
            pool.novelty,
        ]
    )[pool.candidates]
    components = principal_components(pool.points[pool.candidates], min(count, COMPONENTS))
    columns = np.column_stack([_unit(components), OTHER_WEIGHT * _unit(other)])
    scores: list[FloatArray] = []
    while len(scores) < count:
        directions = np.atleast_2d(ortho_group.rvs(columns.shape[1], random_state=rng))
        scores += [TILT * _unit(columns @ direction) for direction in directions]
    return [pool.candidates[gumbel_top(tilt, pool.batch_size, rng)] for tilt in scores[:count]]


def gumbel_top(scores: FloatArray, size: int, rng: np.random.Generator) -> IntArray:
    """[size] positions drawn without replacement, each pick in proportion to exp(scores)."""
    return np.argsort(-(scores + rng.gumbel(size=len(scores))), kind="stable")[:size]


def principal_components(points: FloatArray, count: int) -> FloatArray:
    """[N, P] scores of points [N, D] on their P = min(count, D, N - 1, rank) first axes.

    Signs are fixed by making the largest entry of each axis positive.
    """
    centred = points - points.mean(axis=0)
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    rank = int((singular > 1e-9 * max(float(singular.max(initial=0.0)), 1e-300)).sum())
    first = axes[: min(count, rank, max(len(points) - 1, 0))]
    largest = first[np.arange(len(first)), np.abs(first).argmax(axis=1)]
    return np.asarray(centred @ (first * np.sign(largest)[:, None]).T)


def _unit(values: FloatArray) -> FloatArray:
    """Mean 0 and standard deviation 1 along the first axis; 0 where constant."""
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(
        np.where(spread > 1e-12, centred / np.where(spread > 1e-12, spread, 1.0), 0.0)
    )

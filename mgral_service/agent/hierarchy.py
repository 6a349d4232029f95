"""Clusters first, then images: the policy scores clusters of the pool, and the images of the best
of them only.

Choosing then costs one comparison with every centroid an image, in place of a step of the walk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_array

from mgral_service.agent.policy import score
from mgral_service.agent.streaming import Best, Rows, Weights, select
from mgral_service.domain.arrays import Float32Array, IntArray

MULTIPLE = 3.0  # images in the opened clusters, in budgets
SAMPLE = 20_000  # images that place the centroids, and at least
_PER_CLUSTER = 32
_TURNS = 5  # over the sample
_ROWS = 4096  # images compared with the centroids at a time


def k_means(points: np.ndarray[Any, Any], clusters: int, rng: np.random.Generator) -> Float32Array:
    """[k, D] centroids of points [N, D] by mini-batches (Sculley, 2010); k = min(clusters, N).

    A centroid moves toward the mean of all points that were ever nearest to it.
    """
    sample = np.asarray(points, dtype=np.float32)
    centroids = sample[rng.choice(len(sample), min(clusters, len(sample)), replace=False)]
    weight = np.zeros(len(centroids), np.float32)
    for _ in range(_TURNS):
        shuffled = sample[rng.permutation(len(sample))]
        for start in range(0, len(sample), _ROWS):
            batch = shuffled[start : start + _ROWS]
            member = csr_array(
                (np.ones(len(batch), np.float32), nearest(batch, centroids), range(len(batch) + 1)),
                shape=(len(batch), len(centroids)),
            )
            count = np.asarray(member.sum(axis=0))
            weight += count
            pull = member.T @ batch - count[:, None] * centroids
            centroids = centroids + pull / np.maximum(weight, 1.0)[:, None]
    return centroids


def nearest(points: np.ndarray[Any, Any], centroids: Float32Array) -> IntArray:
    """[N] the centroid that is nearest to each point, Euclidean."""
    squares = np.einsum("kd,kd->k", centroids, centroids)
    return np.asarray(np.argmin(squares - 2.0 * (points @ centroids.T), axis=1))


def shortlist(
    weights: Weights,
    points: Rows,
    clusters: int,
    size: int,
    rng: np.random.Generator,
    multiple: float = MULTIPLE,
) -> IntArray:
    """Positions, rising, of the images in the best clusters of standardised points [N, D].

    Centroids are scored in one walk; clusters are opened from the best down until they hold
    `multiple` * `size` images or all. Without clusters (0) these are all images.
    """
    count = points.shape[0]
    if clusters == 0 or multiple * size >= count:
        return np.arange(count)
    sample = min(count, max(SAMPLE, _PER_CLUSTER * clusters))
    chosen = np.sort(rng.choice(count, sample, replace=False))
    centroids = k_means(points.take(chosen, axis=0), clusters, rng)
    order = np.argsort(-score(weights, centroids.astype(np.float64)), kind="stable")
    parts = range(0, count, _ROWS)
    home = np.concatenate([nearest(points[at : at + _ROWS], centroids) for at in parts])
    held = np.bincount(home, minlength=len(centroids))[order].cumsum()
    opened = order[: np.searchsorted(held, multiple * size) + 1]
    return np.flatnonzero(np.isin(home, opened))


def select_by_clusters(
    weights: Weights,
    points: Rows,
    clusters: int,
    size: int,
    rng: np.random.Generator,
    multiple: float = MULTIPLE,
) -> Best:
    """The top-B of the policy's walk over the shortlist; positions are those of `points`."""
    if clusters == 0:
        return select(weights, points, size)
    kept = shortlist(weights, points, clusters, size, rng, multiple)
    best = select(weights, points.take(kept, axis=0), size)
    best.positions = kept[best.positions]
    return best

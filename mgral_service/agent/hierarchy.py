"""Clusters first, then images: the policy scores clusters of the pool, and the images of the best
of them only.

Choosing then costs one comparison with every centroid an image, in place of a step of the walk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import pairwise_distances_argmin

from mgral_service.agent.policy import score
from mgral_service.agent.streaming import Best, Rows, Weights, select
from mgral_service.domain.arrays import Float32Array, IntArray

MULTIPLE = 3.0  # images in the opened clusters, in budgets
SAMPLE = 20_000  # images that place the centroids, and at least
_PER_CLUSTER = 32
_ROWS = 4096  # images compared with the centroids at a time


def centroids_of(points: np.ndarray[Any, Any], clusters: int, seed: int) -> Float32Array:
    """[k, D] centroids of points [N, D] by mini-batches (Sculley, 2010); k = min(clusters, N)."""
    sample = np.asarray(points, dtype=np.float32)
    k_means = MiniBatchKMeans(
        min(clusters, len(sample)), random_state=seed % 2**32, n_init=1, batch_size=_ROWS
    )
    return np.asarray(k_means.fit(sample).cluster_centers_, dtype=np.float32)


def nearest(points: np.ndarray[Any, Any], centroids: Float32Array) -> IntArray:
    """[N] the centroid that is nearest to each point, Euclidean."""
    rows = pairwise_distances_argmin(np.asarray(points, np.float32), centroids)
    return np.asarray(rows, dtype=np.int64)


def shortlist(
    weights: Weights,
    points: Rows,
    clusters: int,
    size: int,
    seed: int,
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
    chosen = np.sort(np.random.default_rng(seed).choice(count, sample, replace=False))
    centroids = centroids_of(points.take(chosen, axis=0), clusters, seed)
    order = np.argsort(-score(weights, centroids.astype(np.float64)), kind="stable")
    parts = range(0, count, _ROWS)
    members = np.concatenate([nearest(points[row : row + _ROWS], centroids) for row in parts])
    counts = np.bincount(members, minlength=len(centroids))[order].cumsum()
    opened = order[: np.searchsorted(counts, multiple * size) + 1]
    return np.flatnonzero(np.isin(members, opened))


def select_by_clusters(
    weights: Weights,
    points: Rows,
    clusters: int,
    size: int,
    seed: int,
    multiple: float = MULTIPLE,
) -> Best:
    """The top-B of the policy's walk over the shortlist; positions are those of `points`."""
    if clusters == 0:
        return select(weights, points, size)
    rows = shortlist(weights, points, clusters, size, seed, multiple)
    best = select(weights, points.take(rows, axis=0), size)
    best.positions = rows[best.positions]
    return best

"""How far two batches are apart: the Wasserstein distance between their embeddings, exact or along
fixed directions.

A batch's sketch is made by `batch_sketch` and nowhere else, so
that records written by one process can be compared with batches proposed in another.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import coo_array
from scipy.spatial.distance import cdist

from mgral_service.domain.arrays import FloatArray, IntArray

DIRECTIONS = 32  # P, projections of a sketch
LEVELS = 8  # Q, quantiles along each
_SEED = 1509  # of the directions; part of the sketch's meaning, so it never changes


def standardise(embeddings: FloatArray) -> FloatArray:
    """[N, D] with mean 0 and standard deviation 1 in each column; the one place where embeddings
    are scaled.

    A value that is not finite counts as its column's mean, a constant column becomes 0.
    """
    points = np.array(embeddings, dtype=np.float64)
    finite = np.isfinite(points)
    points[~finite] = 0.0
    count = np.maximum(finite.sum(axis=0), 1)
    mean = points.sum(axis=0) / count
    points = np.where(finite, points - mean, 0.0)
    spread = np.sqrt((points**2).sum(axis=0) / count)
    varies = spread > 1e-12 * np.maximum(np.abs(mean), 1.0)
    return np.where(varies, points / np.where(varies, spread, 1.0), 0.0)


def directions(dimension: int, count: int, rng: np.random.Generator) -> FloatArray:
    """[count, dimension] unit vectors, uniform on the sphere."""
    raw = rng.standard_normal((count, dimension))
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True))


@cache
def fixed_directions(dimension: int) -> FloatArray:
    """[P, dimension] the directions of every sketch of embeddings of this dimension; read-only."""
    fixed = directions(dimension, DIRECTIONS, np.random.default_rng([_SEED, dimension]))
    fixed.flags.writeable = False
    return fixed


def quantiles(projected: FloatArray, levels: int) -> FloatArray:
    """Sketches [..., P * levels] of projections [..., B, P]: quantiles at (j + 1/2) / levels,
    direction by direction.
    """
    at = (np.arange(levels) + 0.5) / levels
    count = projected.shape[-2]
    place = np.clip(at * count - 0.5, 0.0, count - 1.0)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, count - 1)
    share = (place - low)[:, None]
    ordered = np.sort(projected, axis=-2)
    rows = ordered[..., low, :] * (1.0 - share) + ordered[..., high, :] * share  # [..., Q, P]
    return np.asarray(np.swapaxes(rows, -1, -2).reshape(*projected.shape[:-2], -1))


def sketch(points: FloatArray, along: FloatArray, levels: int = LEVELS) -> FloatArray:
    """[P * levels] of a batch's points [B, D] along directions [P, D]; the order of the points does
    not matter.
    """
    return quantiles(points @ along.T, levels)


def batch_sketch(points: FloatArray, positions: IntArray) -> FloatArray:
    """[P * Q] of the batch at `positions` of the standardised embeddings [N, D]: what a
    LookupRecord keeps.
    """
    return sketch(points[positions], fixed_directions(points.shape[1]))


def sliced_distance(first: FloatArray, second: FloatArray) -> FloatArray:
    """Sliced W1 between sketches [..., F], broadcast over the leading axes: mean distance of
    matching quantiles.
    """
    return np.asarray(np.abs(first - second).mean(axis=-1))


def exact_distance(first: FloatArray, second: FloatArray) -> float:
    """W1 between the point clouds [A, D] and [B, D], every point of a cloud weighing the same;
    Euclidean ground.
    """
    cost = cdist(first, second)
    rows, columns = cost.shape
    if rows == columns:
        pairs = linear_sum_assignment(cost)
        return float(cost[pairs].mean())
    return _transport_cost(cost)


def _transport_cost(cost: FloatArray) -> float:
    """The same for clouds of different size: a linear programme over the plan [A, B]."""
    rows, columns = cost.shape
    cell = np.arange(rows * columns)
    constraints = coo_array(
        (
            np.ones(2 * cell.size),
            (np.concatenate([cell // columns, rows + cell % columns]), np.tile(cell, 2)),
        ),
        shape=(rows + columns, cell.size),
    )
    masses = np.concatenate([np.full(rows, 1.0 / rows), np.full(columns, 1.0 / columns)])
    answer = linprog(cost.ravel(), A_eq=constraints.tocsr(), b_eq=masses, method="highs")
    if not answer.success:
        raise ArithmeticError(f"no transport plan found: {answer.message}")
    return float(answer.fun)

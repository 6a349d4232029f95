"""How far two batches are apart: the Wasserstein distance between their embeddings, exact or along
fixed directions.

A sketch of a batch is made by `sketches` and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
from scipy.optimize import linear_sum_assignment, linprog
from scipy.sparse import coo_array
from scipy.spatial.distance import cdist

from mgral_service.domain.arrays import Float32Array, FloatArray, IntArray

DIRECTIONS = 32  # P, projections of a sketch
LEVELS = 8  # Q, quantiles along each
_SEED = 1509  # of the directions
_CELLS = 2**26  # distances held at once, half a gigabyte
_TEMPERATURE = 0.02  # of the approximate prices, in mean distances
_ROUNDS = 24  # of the approximate prices
_FLOOR = 1e-20  # of their kernel, so that single precision holds every product and quotient


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
    """Sketches [..., P * levels] of projections [..., P, B]: quantiles at (j + 1/2) / levels,
    direction by direction.
    """
    shares = (np.arange(levels) + 0.5) / levels
    count = projected.shape[-1]
    place = np.clip(shares * count - 0.5, 0.0, count - 1.0)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, count - 1)
    share = place - low
    ordered = np.sort(projected, axis=-1)
    rows = ordered[..., low] * (1.0 - share) + ordered[..., high] * share  # [..., P, Q]
    return np.asarray(rows.reshape(*projected.shape[:-2], -1))


def sketch(points: FloatArray, along: FloatArray, levels: int = LEVELS) -> FloatArray:
    """[P * levels] of a batch's points [B, D] along directions [P, D]; the order of the points does
    not matter.
    """
    return quantiles(along @ points.T, levels)


def sketches(projected: FloatArray, batches: Sequence[IntArray]) -> FloatArray:
    """[K, P * Q] of batches among a pool whose projections [P, N] are known."""
    return np.stack([quantiles(projected[:, batch], LEVELS) for batch in batches])


def sliced_distances(first: FloatArray, second: FloatArray) -> FloatArray:
    """[K, M] sliced W1 between sketches [K, F] and [M, F]: mean distance of matching quantiles."""
    return np.asarray(cdist(first, second, "cityblock") / first.shape[1])


def exact_distances(
    points: FloatArray, batches: Sequence[IntArray], records: Sequence[IntArray]
) -> FloatArray:
    """[K, M] W1 between batches and records, Euclidean ground, every image of a batch weighing the
    same.

    Both are distinct positions in points [N, D]. Images that two batches of one size share stay
    where they are: with a metric ground cost, mass common to both need not move (Kantorovich and
    Rubinstein). Distances to a batch are computed once for all records; their assignments are
    solved in parallel threads. ValueError for a distance that is not finite.
    """
    answer = np.empty((len(batches), len(records)))
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for row, batch in zip(answer, batches, strict=True):
            place = 0
            for group in _groups(len(points), len(batch), records):
                reach = _Reach(points, batch, group)
                row[place : place + len(group)] = list(threads.map(reach.distance, group))
                place += len(group)
    return answer


def exact_pairs(points: FloatArray, batches: Sequence[IntArray]) -> FloatArray:
    """[M, M] the same between each two of the batches."""
    pairs = np.zeros((len(batches), len(batches)))
    for row, batch in enumerate(batches):
        pairs[row, row + 1 :] = exact_distances(points, [batch], batches[row + 1 :])[0]
    return pairs + pairs.T


def _groups(count: int, size: int, records: Sequence[IntArray]) -> Iterator[Sequence[IntArray]]:
    """The records in turn, so many together that the distances from a batch of `size` to all their
    images, at most `count`, fit in _CELLS.
    """
    together = len(records)
    if size * count > _CELLS:
        together = max(1, _CELLS // (size * max((len(record) for record in records), default=1)))
    for start in range(0, len(records), together or 1):
        yield records[start : start + together]


class _Reach:
    """Distances [U, B] from all images of some records, but those in the batch, to the batch."""

    def __init__(self, points: FloatArray, batch: IntArray, records: Sequence[IntArray]) -> None:
        self._points, self._batch = points, batch
        self._images = np.setdiff1d(np.concatenate(records), batch)
        self._costs = _distances(points[self._images], points[batch])
        self._heat = (
            max(_TEMPERATURE * float(self._costs.mean()), 1e-300) if len(self._images) else 1.0
        )
        self._kernel = _kernel(self._costs, self._heat)

    def distance(self, record: IntArray) -> float:
        """W1 from the batch to one of the records."""
        if len(record) != len(self._batch):
            return _transport_cost(cdist(self._points[self._batch], self._points[record]))
        from_record = np.setdiff1d(record, self._batch)
        if not len(from_record):
            return 0.0
        open_ones = np.flatnonzero(~np.isin(self._batch, record))
        rows = np.searchsorted(self._images, from_record)
        costs, kernel = self._costs[rows], self._kernel[rows]
        if len(open_ones) < len(self._batch):
            costs, kernel = costs[:, open_ones], kernel[:, open_ones]
        start, end = linear_sum_assignment(_priced(costs, kernel, self._heat))
        moves = self._points[from_record[start]] - self._points[self._batch[open_ones[end]]]
        return float(np.linalg.norm(moves, axis=1).sum() / len(record))


def _distances(first: FloatArray, second: FloatArray) -> FloatArray:
    """[A, B] between points [A, D] and [B, D], from their inner products: good to 1e-6 of their
    length where they nearly coincide, to 1e-13 elsewhere.
    """
    squares = first @ second.T
    squares *= -2.0
    squares += (first**2).sum(axis=1)[:, None]
    squares += (second**2).sum(axis=1)
    return np.sqrt(np.maximum(squares, 0.0, out=squares), out=squares)


def _kernel(costs: FloatArray, heat: float) -> Float32Array:
    """exp(-cost / heat), each row over its largest, kept above what single precision loses."""
    if not costs.size:
        return np.zeros(costs.shape, dtype=np.float32)
    cooled = ((costs.min(axis=1, keepdims=True) - costs) / heat).astype(np.float32)
    return np.asarray(np.maximum(np.exp(cooled, out=cooled), np.float32(_FLOOR), out=cooled))


def _priced(costs: FloatArray, kernel: Float32Array, heat: float) -> FloatArray:
    """Costs [A, A] less a price a column and a row, which leave the best assignment as it is.

    Near the best prices nearly every row has a column of its own at no cost, and little is left to
    solve. They are read off the entropic plan of `kernel` (Sinkhorn's iteration, Cuturi 2013).
    einsum keeps to its thread, where BLAS would start more within each.
    """
    rows = np.ones(len(kernel), dtype=np.float32)
    columns = rows
    for _ in range(_ROUNDS):
        columns = 1.0 / np.einsum("i,ij->j", rows, kernel)
        rows = 1.0 / np.einsum("ij,j->i", kernel, columns)
    priced = costs - heat * np.log(columns)
    priced -= priced.min(axis=1, keepdims=True)
    priced -= priced.min(axis=0)
    return np.asarray(priced)


def _transport_cost(cost: FloatArray) -> float:
    """W1 of clouds of different size: a linear programme over the plan [A, B]."""
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

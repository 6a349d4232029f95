"""A Gaussian process over batch features: linear plus RBF, fitted by marginal likelihood.

Estimates and scores are fractions of mAP; batches are positions in the observation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import null_space
from scipy.spatial.distance import cdist

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.evidence import Reliability
from mgral_service.domain.feature_model import FeatureModel
from mgral_service.domain.frame import Frame
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.reliability import table_reliability

_BENDS = (0.0, 0.25, 0.5, 0.75)  # share of the RBF in the kernel
_LENGTHS = (0.5, 1.0, 2.0)  # of the RBF, median distances between records
_NOISES = np.logspace(-2, 2, 9)  # variance of the noise, signal variances


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """A kernel's shape, decomposed once for all scores: what is left when group levels are free.

    basis  [M, E] eigenvectors of the records' covariance among the contrasts of each group
    values [E] its eigenvalues, signal variance 1
    """

    bend: float
    length: float
    basis: FloatArray
    values: FloatArray


class GaussianProcess(FeatureModel):
    """y = level of the group + f(x) + noise / weight, f ~ GP(0, linear + RBF).

    The kernel's shape, its variance and the noise are those of the highest restricted marginal
    likelihood on a grid, so levels cost no optimism. An estimate is the gain over the frame's
    reference, f(x) - f(0), with its standard deviation.
    """

    name = "gp"

    def fit(self, table: LookupTable) -> None:
        self._table, self._frame = table, Frame(self._features, table)
        self._kept = np.flatnonzero(table.weights > 0)
        self._rows = rows = self._frame.rows[self._kept]
        self._root = np.sqrt(table.weights[self._kept])
        apart = cdist(rows, rows)
        self._unit = float(np.median(apart[np.triu_indices(len(rows), 1)])) or 1.0
        self._shapes = list(self._decomposed(np.arange(len(rows))))
        scores = table.deviations()[self._kept] * self._root
        best = max(_likelihoods(self._shapes, scores[None]), key=lambda one: float(one[0][0]))
        _, self._shape, self._noise = best
        inner = self._shape.basis.T @ scores
        divided = 1.0 / (self._shape.values + self._noise)
        self._variance = float(inner**2 @ divided) / max(len(inner), 1)  # of the signal
        self._precision = (self._shape.basis * divided) @ self._shape.basis.T
        self._alpha = self._precision @ scores

    def _decomposed(self, among: IntArray) -> Iterator[_Shape]:
        """Of the kept records at `among`."""
        rows, root = self._rows[among], self._root[among]
        groups = self._table.groups[self._kept[among]]
        levels = np.stack([(groups == group) * root for group in np.unique(groups)], axis=1)
        contrasts = null_space(levels.T)  # orthonormal, without a level of any group
        for bend in _BENDS:
            for length in _LENGTHS if bend > 0 else _LENGTHS[:1]:
                kernel = self._kernel(rows, rows, bend, length) * root[:, None] * root
                covariance = contrasts.T @ kernel @ contrasts
                values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
                yield _Shape(bend, length, contrasts @ vectors, np.maximum(values, 0.0))

    def _kernel(
        self, first: FloatArray, second: FloatArray, bend: float, length: float
    ) -> FloatArray:
        """[A, B] of signal variance about 1."""
        linear = first @ second.T / max(first.shape[1], 1)
        if bend == 0:
            return np.asarray(linear)
        near = np.exp(-0.5 * (cdist(first, second) / (length * self._unit)) ** 2)
        return np.asarray((1.0 - bend) * linear + bend * near)

    def _leave_out(self, deviations: FloatArray) -> FloatArray:
        """[R, M] left-out estimates for rows of deviations [R, M], each with the kernel of its own
        highest likelihood: residual i is (P y)_i / P_ii; a block's by a fit without it.
        """
        scores = deviations[:, self._kept] * self._root
        best = np.full((len(scores), 1), -np.inf)
        errors = np.zeros_like(scores)
        for likelihood, shape, noise in _likelihoods(self._shapes, scores):
            better = likelihood[:, None] > best
            divided = 1.0 / (shape.values + noise)
            error = ((scores @ shape.basis) * divided) @ shape.basis.T
            error /= np.maximum((shape.basis**2) @ divided, 1e-300)
            errors = np.where(better, error, errors)
            best = np.maximum(best, likelihood[:, None])
        left_out = np.zeros_like(deviations)
        left_out[:, self._kept] = deviations[:, self._kept] - errors / self._root
        for block in self._table.blocks:
            if len(block) > 1:
                left_out[:, block] = self._without(block, scores)
        return left_out

    def _without(self, block: IntArray, scores: FloatArray) -> FloatArray:
        """[R, B] estimates of a block's records, less the mean of those that count, by all others;
        for rows of weighted scores [R, E].
        """
        rest = np.flatnonzero(~np.isin(self._kept, block))
        scores, own = scores[:, rest], self._frame.rows[block]
        counted = self._table.weights[block] > 0
        centre = counted if counted.any() else ~counted
        best = np.full((len(scores), 1), -np.inf)
        found = np.zeros((len(scores), len(block)))
        for likelihood, shape, noise in _likelihoods(self._decomposed(rest), scores):
            better = likelihood[:, None] > best
            alpha = ((scores @ shape.basis) / (shape.values + noise)) @ shape.basis.T
            cross = self._kernel(self._rows[rest], own, shape.bend, shape.length)
            cross = cross - cross[:, centre].mean(axis=1, keepdims=True)
            gain = (alpha * self._root[rest]) @ cross
            found = np.where(better, gain, found)
            best = np.maximum(best, likelihood[:, None])
        return found

    def estimate(self, batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        """Mean [K] and standard deviation [K]."""
        placed = self._frame.place(batches)
        gain, variance = self._gain(placed)
        level = self._noise / self._table.weights.sum()
        return self._table.level + gain, np.sqrt(self._variance * (variance + level))

    def _gain(self, placed: FloatArray) -> tuple[FloatArray, FloatArray]:
        """f(x) - f(0) at features [K, F]: mean [K], and variance [K] in signal variances."""
        rows, bend, length = self._rows, self._shape.bend, self._shape.length
        origin = np.zeros((1, rows.shape[1]))
        cross = self._kernel(placed, rows, bend, length) - self._kernel(origin, rows, bend, length)
        cross = cross * self._root
        to_origin = self._kernel(placed, origin, bend, length)[:, 0]
        linear = (placed**2).sum(axis=1) / max(rows.shape[1], 1)
        before = (1.0 - bend) * linear + 2.0 * bend - 2.0 * to_origin
        known = ((cross @ self._precision) * cross).sum(axis=1)
        return cross @ self._alpha, np.maximum(before - known, 0.0)

    def slopes(self, begun: IntArray, size: int) -> FloatArray:
        placed = self._frame.begun(begun, size)
        rows, bend, width = self._rows, self._shape.bend, self._shape.length * self._unit
        weights = self._alpha * self._root
        near = np.exp(-0.5 * cdist(placed[None], rows)[0] ** 2 / width**2)
        bent = (weights * near) @ (rows - placed) / width**2
        return np.asarray((1.0 - bend) * (weights @ rows) / max(rows.shape[1], 1) + bend * bent)

    def left_out(self) -> FloatArray:
        """[M] each record from those that are not of its block (LookupTable.blocks)."""
        table = self._table
        deviations = table.deviations()
        left_out = self._leave_out(deviations[None])[0]
        without = (table.weights > 0) | table.blocked
        gain = np.where(without, left_out, self._gain(self._frame.rows)[0])
        return np.asarray(table.scores - deviations + gain)

    def reliability(self, rng: np.random.Generator) -> Reliability:
        """Rank correlation of what left-out estimates say beyond the mean with the measurements."""
        return table_reliability(self._table, self._leave_out, rng)


def _likelihoods(
    shapes: Iterable[_Shape], scores: FloatArray
) -> Iterator[tuple[FloatArray, _Shape, float]]:
    """([R] log likelihood of weighted scores [R, M], shape, noise) over the grid; the signal's
    variance is its best one.
    """
    for shape in shapes:
        squares = (scores @ shape.basis) ** 2
        count = max(squares.shape[1], 1)
        for noise in _NOISES:
            total = shape.values + noise
            variance = np.maximum((squares / total).sum(axis=1) / count, 1e-300)
            yield -0.5 * (count * np.log(variance) + np.log(total).sum()), shape, float(noise)

"""A linear value model of batch features.

Estimates and scores are fractions of mAP; batches are positions in the observation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.evidence import Reliability
from mgral_service.domain.feature_model import FeatureModel
from mgral_service.domain.frame import Frame
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.reliability import table_reliability

_PENALTIES = np.logspace(-3, 3, 25)  # a record
_QUIET = 0.1  # prior standard deviation of a kind of features that is taken to matter little


@dataclass(frozen=True, slots=True, eq=False)
class _Shape:
    """Which kinds of features matter: the prior standard deviation [F] of their weights, and the
    decomposition left [M, E], singular [E], axes [E, F] of the rows that it scales.
    """

    prior: FloatArray
    left: FloatArray
    singular: FloatArray
    axes: FloatArray


class _Regression:
    """Ridge regressions on weighted rows: every choice of the kinds that matter, every penalty.

    rows    [M, F] centred in each group; root [M] of the records' weights
    kinds   [F]; groups [M]
    """

    def __init__(
        self, rows: FloatArray, root: FloatArray, kinds: IntArray, groups: IntArray
    ) -> None:
        counted = groups[root > 0]
        self._free = max(len(counted) - len(np.unique(counted)), 1)  # contrasts, no group's level
        self.count = float((root**2).sum())
        self._shapes = list(_decomposed(rows * root[:, None], kinds))

    def candidate(self, at: int) -> tuple[_Shape, float]:
        """Shape and penalty."""
        shape, penalty = divmod(at, len(_PENALTIES))
        return self._shapes[shape], float(_PENALTIES[penalty] * self.count)

    def likeliest(self, scores: FloatArray) -> tuple[IntArray, FloatArray]:
        """[R] which candidate suits weighted scores [R, M] best, and [R] the noise's variance at
        which it does.
        """
        total = (scores**2).sum(axis=1)
        costs, noises = [], []
        for shape in self._shapes:
            parts = (scores @ shape.left) ** 2
            beyond = np.maximum(total - parts.sum(axis=1), 0.0)
            for penalty in _PENALTIES * self.count:
                spread = 1.0 + shape.singular**2 / penalty
                noise = np.maximum(beyond + parts @ (1.0 / spread), 1e-300) / self._free
                costs.append(self._free * np.log(noise) + np.log(spread).sum())
                noises.append(noise)
        best = np.argmin(costs, axis=0)
        return best, np.asarray(noises)[best, np.arange(len(scores))]

    def each(self, scores: FloatArray) -> Iterator[tuple[IntArray, _Shape, float]]:
        """Which rows of weighted scores [R, M] have which likeliest shape and penalty."""
        likeliest, _ = self.likeliest(scores)
        for at in np.unique(likeliest):
            yield np.flatnonzero(likeliest == at), *self.candidate(int(at))


def _decomposed(rows: FloatArray, kinds: IntArray) -> Iterator[_Shape]:
    present = np.unique(kinds)
    for choice in product((1.0, _QUIET), repeat=len(present)):
        if max(choice) < 1.0:
            continue  # as all of them, with a larger penalty
        prior = np.asarray(choice)[np.searchsorted(present, kinds)]
        left, singular, axes = np.linalg.svd(rows * prior, full_matrices=False)
        kept = singular > 1e-9 * max(float(singular[0]), 1e-300)
        yield _Shape(prior, left[:, kept], singular[kept], axes[kept])


class Ridge(FeatureModel):
    """Weighted linear regression on batch features (domain/frame.py).

    Each kind of features matters or hardly does; which ones, and the penalty, are those of the
    highest restricted marginal likelihood. Each group of records has a free level, and everything
    is closed form in singular values. The standard deviation is that of the mean: the level's, plus
    what the features leave open; along directions that the table never varied it is the prior's.
    Its unit is the noise of that likelihood: with more features than records the fit itself leaves
    none.
    """

    name = "ridge"
    penalty = 0.0

    def fit(self, table: LookupTable) -> None:
        self._table, self._frame = table, Frame(self._features, table)
        self._root = np.sqrt(table.weights)
        self._whole = self._regression(self._root)
        deviations = table.deviations()
        scores = deviations * self._root
        (at,), (noise,) = self._whole.likeliest(scores[None])
        self._shape, self.penalty = self._whole.candidate(int(at))
        self._noise = float(np.sqrt(noise))
        self._theta: FloatArray = _weights(scores[None], self._shape, self.penalty)[0]

    def slopes(self, begun: IntArray, size: int) -> FloatArray:
        return self._theta

    @property
    def prior(self) -> FloatArray:
        """[F] prior standard deviation of each feature's weight: 1, or little."""
        return self._shape.prior

    def _regression(self, root: FloatArray) -> _Regression:
        return _Regression(self._frame.rows, root, self._features.kinds, self._table.groups)

    def _leave_out(self, deviations: FloatArray) -> FloatArray:
        """[R, M] left-out estimates for rows of deviations, each row's with its own likeliest shape
        and penalty: by residual / (1 - h), or for a block by a fit without it.
        """
        scores = deviations * self._root
        level = _level_share(self._table)
        errors = np.zeros_like(scores)
        for rows, shape, penalty in self._whole.each(scores):
            shrink = shape.singular**2 / (shape.singular**2 + penalty)
            hat = np.minimum(level + (shape.left**2) @ shrink, 1.0 - 1e-9)
            fitted = ((scores[rows] @ shape.left) * shrink) @ shape.left.T
            errors[rows] = (scores[rows] - fitted) / (1.0 - hat)
        left_out = deviations - errors / np.maximum(self._root, 1e-150)
        for block in self._table.blocks:
            if len(block) > 1:
                left_out[:, block] = self._without(block, deviations)
        return np.asarray(left_out)

    def _without(self, block: IntArray, deviations: FloatArray) -> FloatArray:
        """[R, B] of a block's records by all others, for rows of deviations [R, M]."""
        root = self._root.copy()
        root[block] = 0.0
        scores, others = deviations * root, self._regression(root)
        found = np.zeros((len(scores), len(block)))
        for rows, shape, penalty in others.each(scores):
            found[rows] = _weights(scores[rows], shape, penalty) @ self._frame.rows[block].T
        return found

    def estimate(self, batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        """Mean [K] and standard deviation [K]."""
        placed = self._frame.place(batches)
        scaled = placed * self._shape.prior
        along = scaled @ self._shape.axes.T
        beyond = np.maximum((scaled**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        leverage = (along**2 / (self._shape.singular**2 + self.penalty)).sum(axis=1)
        open_share = 1.0 / self._whole.count + leverage + beyond / self.penalty
        return self._table.level + placed @ self._theta, self._noise * np.sqrt(open_share)

    def left_out(self) -> FloatArray:
        """[M] each record from those that are not of its block (LookupTable.blocks)."""
        table = self._table
        deviations = table.deviations()
        without = (table.weights > 0) | table.blocked
        left_out = self._leave_out(deviations[None])[0]
        gain = np.where(without, left_out, self._frame.rows @ self._theta)
        return np.asarray(table.scores - deviations + gain)

    def reliability(self, rng: np.random.Generator) -> Reliability:
        """Rank correlation of what left-out estimates say beyond the mean with the measurements."""
        return table_reliability(self._table, self._leave_out, rng)


def _weights(scores: FloatArray, shape: _Shape, penalty: float) -> FloatArray:
    """[R, F] of the features, fitted to weighted scores [R, M]."""
    shrunk = (scores @ shape.left) * (shape.singular / (shape.singular**2 + penalty))
    return np.asarray(shape.prior * (shrunk @ shape.axes))


def _level_share(table: LookupTable) -> FloatArray:
    """[M] how far each record determines its group's level; 1 where it is alone."""
    same = table.groups[:, None] == table.groups
    total = (same * table.weights).sum(axis=1)
    return np.where(total > 0, table.weights / np.where(total > 0, total, 1.0), 0.0)

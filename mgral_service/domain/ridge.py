"""A linear value model of batch features.

Estimates and scores are fractions of mAP; batches are positions in the observation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.features import BatchFeatures
from mgral_service.domain.frame import Frame
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.records import Reliability
from mgral_service.domain.reliability import table_reliability

_PENALTIES = np.logspace(-3, 3, 25)  # a record


class Ridge:
    """Weighted linear regression on batch features (domain/frame.py) with a penalty that the
    left-out errors choose.

    Each group of records has a free level, everything is closed form in the singular values. The
    standard deviation is that of the mean: the level's, plus what the features leave open; along
    directions that the table never varied it is the prior's. Its unit is the spread of the left-out
    errors, since with more features than records the fit itself leaves none.
    """

    def __init__(self, features: BatchFeatures) -> None:
        self.misses = 0  # a ridge answers everywhere; its standard deviation says how well
        self._features = features
        self.penalty = 0.0

    def fit(self, table: LookupTable) -> None:
        """Fit to two records or more that count; InvalidInput for fewer."""
        self._table, self._frame = table, Frame(self._features, table)
        self._root = np.sqrt(table.weights)
        left, singular, axes = np.linalg.svd(
            self._frame.rows * self._root[:, None], full_matrices=False
        )
        kept = singular > 1e-9 * max(float(singular[0]), 1e-300)
        self._left, self._singular, self._axes = left[:, kept], singular[kept], axes[kept]
        self._count = float(table.weights.sum())
        deviations = table.deviations()
        estimates, penalties = self._leave_out(deviations[None])
        self._left_out, self.penalty = estimates[0], float(penalties[0])
        scores = deviations * self._root
        inner = self._left.T @ scores
        squares = self._singular**2
        self._theta = self._axes.T @ (self._singular / (squares + self.penalty) * inner)
        errors = (deviations - self._left_out) * self._root
        self._noise = float(np.sqrt((errors**2).sum() / self._count))

    def _leave_out(self, deviations: FloatArray) -> tuple[FloatArray, FloatArray]:
        """For rows of deviations [R, M]: left-out estimates [R, M] by residual / (1 - h), and the
        penalty [R] whose left-out errors are least.
        """
        scores = deviations * self._root
        inner = scores @ self._left
        squares = self._singular**2
        level = _level_share(self._table)
        best = np.full((len(scores), 1), np.inf)
        errors, penalties = np.zeros_like(scores), np.zeros((len(scores), 1))
        for penalty in _PENALTIES * self._count:
            shrink = squares / (squares + penalty)
            hat = np.minimum(level + (self._left**2) @ shrink, 1.0 - 1e-9)
            error = (scores - (inner * shrink) @ self._left.T) / (1.0 - hat)
            total = (error**2).sum(axis=1, keepdims=True)
            errors = np.where(total < best, error, errors)
            penalties = np.where(total < best, penalty, penalties)
            best = np.minimum(total, best)
        return deviations - errors / np.maximum(self._root, 1e-150), penalties[:, 0]

    def estimate(self, batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        """Mean [K] and standard deviation [K]."""
        placed = self._frame.place(batches)
        along = placed @ self._axes.T
        beyond = np.maximum((placed**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        leverage = (along**2 / (self._singular**2 + self.penalty)).sum(axis=1)
        open_share = 1.0 / self._count + leverage + beyond / self.penalty
        return self._table.level + placed @ self._theta, self._noise * np.sqrt(open_share)

    def left_out(self) -> FloatArray:
        """[M] each record from all others: residual / (1 - h), no refit."""
        table = self._table
        level = table.scores - table.deviations()
        gain = np.where(table.weights > 0, self._left_out, self._frame.rows @ self._theta)
        return np.asarray(level + gain)

    def reliability(self, rng: np.random.Generator) -> Reliability:
        """Rank correlation of what left-out estimates say beyond the mean with the measurements."""
        return table_reliability(self._table, lambda rows: self._leave_out(rows)[0], rng)

    def image_values(self) -> FloatArray:
        """[N] what each image adds by the fitted weights, up to a constant
        (BatchFeatures.linear_values).
        """
        return self._features.linear_values(self._theta / self._frame.scale, self._frame.size)


def _level_share(table: LookupTable) -> FloatArray:
    """[M] how far each record determines its group's level; 1 where it is alone."""
    same = table.groups[:, None] == table.groups
    total = (same * table.weights).sum(axis=1)
    return np.where(total > 0, table.weights / np.where(total > 0, total, 1.0), 0.0)

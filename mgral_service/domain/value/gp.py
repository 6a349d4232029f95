"""A Gaussian process over batch features: linear plus RBF, fitted by restricted likelihood.

Gains are fractions of mAP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self
from weakref import WeakKeyDictionary

import numpy as np
from scipy.linalg import null_space
from scipy.spatial.distance import cdist

from mgral_service.domain.arrays import BoolArray, FloatArray, IntArray
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.value.features import BatchFeatures
from mgral_service.domain.value.lookup import LookupTable

_BENDS = (0.0, 0.25, 0.5, 0.75)  # share of the RBF in the kernel
_LENGTHS = (0.5, 1.0, 2.0)  # of the RBF, in median distances between records
_NOISES = np.logspace(-2, 2, 9)  # variance of the noise, in signal variances
_PARTS = 10  # in which records of one pool are held out


class GaussianProcess:
    """ports.ValueModel: score = level of the fold + f(features) + noise, f ~ GP(0, linear + RBF).

    The kernel's shape, its variance and the noise maximise the restricted marginal likelihood on a
    grid (Patterson and Thompson, 1971), so that the levels of the folds cost no optimism. An
    estimate is f(x) - f(0): the gain over a uniform batch.
    """

    def __init__(self) -> None:
        self._features: WeakKeyDictionary[CandidatePool, BatchFeatures] = WeakKeyDictionary()

    def fit(self, table: LookupTable) -> None:
        """To all records of a table."""
        rows = np.zeros((len(table), 0))
        for fold, pool in table.pools.items():
            members = np.flatnonzero(table.folds == fold)
            if len(members):
                features = self._of(pool)([table.batches[row] for row in members])
                if not rows.shape[1]:
                    rows = np.zeros((len(table), features.shape[1]))
                rows[members] = features
        self._table = table
        self._fit_rows(rows, table.scores, table.folds)

    def _of(self, pool: CandidatePool) -> BatchFeatures:
        if pool not in self._features:
            self._features[pool] = BatchFeatures(pool)
        return self._features[pool]

    def _fit_rows(self, rows: FloatArray, scores: FloatArray, groups: IntArray) -> Self:
        """rows [M, F], scores [M], groups [M] whose levels are free."""
        if len(rows) < 2:
            raise InvalidInput("table", "fewer than two records: train two proxies or more")
        self._raw, self._groups = rows, groups
        spread = np.sqrt((rows**2).mean(axis=0))
        self._scale = np.where(spread > 1e-9, spread, np.inf)
        self._rows = rows / self._scale
        apart = cdist(self._rows, self._rows)
        self._unit = float(np.median(apart[np.triu_indices(len(rows), 1)])) or 1.0
        members = groups[:, None] == np.unique(groups)
        contrasts = null_space(members.astype(np.float64).T)  # orthonormal, free of levels
        inner = contrasts.T @ scores
        best = -np.inf
        for bend in _BENDS:
            for length in _LENGTHS if bend > 0 else _LENGTHS[:1]:
                kernel = contrasts.T @ self._kernel(self._rows, bend, length) @ contrasts
                values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
                values, squares = np.maximum(values, 0.0), (vectors.T @ inner) ** 2
                for noise in _NOISES:
                    total = values + noise
                    variance = max(float((squares / total).mean()) if len(total) else 0.0, 1e-300)
                    likelihood = -0.5 * (len(total) * np.log(variance) + np.log(total).sum())
                    if likelihood > best:
                        best = float(likelihood)
                        self._bend, self._length, self._variance = bend, length, variance
                        basis = contrasts @ vectors
                        self._precision = (basis / total) @ basis.T
        self._alpha = self._precision @ scores
        return self

    def _kernel(
        self, rows: FloatArray, bend: float, length: float, others: FloatArray | None = None
    ) -> FloatArray:
        """[A, B] of signal variance about 1."""
        others = rows if others is None else others
        linear = rows @ others.T / max(rows.shape[1], 1)
        if bend == 0:
            return np.asarray(linear)
        near = np.exp(-0.5 * (cdist(rows, others) / (length * self._unit)) ** 2)
        return np.asarray((1.0 - bend) * linear + bend * near)

    def estimate(
        self, pool: CandidatePool, batches: Sequence[IntArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Gain over a uniform batch: mean [K] and standard deviation [K]."""
        return self._gain(self._of(pool)(batches))

    def _gain(self, raw: FloatArray) -> tuple[FloatArray, FloatArray]:
        rows, bend, length = raw / self._scale, self._bend, self._length
        origin = np.zeros((1, rows.shape[1]))
        at_origin = self._kernel(origin, bend, length, self._rows)
        cross = self._kernel(rows, bend, length, self._rows) - at_origin
        linear = (rows**2).sum(axis=1) / max(rows.shape[1], 1)
        to_origin = self._kernel(rows, bend, length, origin)[:, 0]
        before = (1.0 - bend) * linear + 2.0 * bend - 2.0 * to_origin
        learned = ((cross @ self._precision) * cross).sum(axis=1)
        variance = self._variance * np.maximum(before - learned, 0.0)
        return np.asarray(cross @ self._alpha), np.sqrt(variance)

    def out_of_support(self, pool: CandidatePool, batches: Sequence[IntArray]) -> BoolArray:
        """[K] False: it answers everywhere, and its standard deviation grows away from records."""
        return np.zeros(len(batches), dtype=np.bool_)

    def held_out(self) -> FloatArray:
        """[M] gains by models that are fitted without the records of the same fold; with one fold
        or a pool, without a tenth of the records each.
        """
        table, groups = self._table, self._groups
        parts = groups if len(np.unique(groups)) > 1 else np.arange(len(table)) % _PARTS
        gains = np.zeros(len(table))
        for part in np.unique(parts):
            held, rest = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
            if len(rest) >= 2:
                model = GaussianProcess()
                model._fit_rows(self._raw[rest], table.scores[rest], groups[rest])
                gains[held] = model._gain(self._raw[held])[0]
        return gains

"""Records and proposed batches in one frame of reference, so that what was learnt beside some
labelled images speaks of a batch beside others.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.features import CLASS, CLASS_COVERAGE, COMPONENT, BatchFeatures
from mgral_service.domain.lookup import LookupTable


class Frame:
    """Batch features less the mean of their group, in units of the records' spread.

    Components have one unit, so that they keep their proportions; class coverage has a smaller one,
    so that it weighs as much as all single classes together.

    rows     [M, F] of the records; a feature that never varied is 0
    weights  [M] of the records
    A proposed batch is told against the pool's records, or without any against a uniform batch of
    its size.
    """

    def __init__(self, features: BatchFeatures, table: LookupTable) -> None:
        """InvalidInput for a table of fewer than two records that count."""
        self.weights = table.weights
        if int(np.count_nonzero(self.weights)) < 2:
            raise InvalidInput("table", "fewer than two records count: it needs two or more")
        self._features = features
        raw = _of_records(features, table)
        centred = raw.copy()
        for group in np.unique(table.groups):
            rows = table.groups == group
            counts = self.weights[rows]
            centred[rows] -= np.average(raw[rows], axis=0, weights=counts if counts.any() else None)
        spread = np.sqrt(np.average(centred**2, axis=0, weights=self.weights))
        varies = spread > 1e-9 * np.maximum(np.abs(raw).max(axis=0), 1.0)
        kinds = features.kinds
        components = np.flatnonzero(kinds == COMPONENT)
        spread[components] = np.sqrt((spread[components] ** 2).sum() / max(len(components), 1))
        spread[kinds == CLASS_COVERAGE] /= max(1, int((kinds == CLASS).sum())) ** 0.5
        self.scale = np.where(varies, spread, np.inf)
        self.rows = centred / self.scale
        own = (table.rotations == 0) & (self.weights > 0)
        self._own = np.average(raw[own], axis=0, weights=self.weights[own]) if own.any() else None
        self._typical: dict[int, FloatArray] = {}

    def place(self, batches: Sequence[IntArray]) -> FloatArray:
        """[K, F] of batches of the pool."""
        references = np.stack([self._reference(len(batch)) for batch in batches])
        return np.asarray((self._features(batches) - references) / self.scale)

    def begun(self, batch: IntArray, size: int) -> FloatArray:
        """[F] of a batch of `size` images that so far has those at `batch`, what is open being like
        the pool.
        """
        if not len(batch):
            return np.zeros(len(self.scale))
        return np.asarray(self.place([batch])[0] * len(batch) / size)

    def _reference(self, size: int) -> FloatArray:
        """[F] raw, what a batch of the pool of `size` images is told against."""
        if self._own is not None:
            return self._own
        if size not in self._typical:
            self._typical[size] = self._features.typical(size)
        return self._typical[size]


def _of_records(features: BatchFeatures, table: LookupTable) -> FloatArray:
    """[M, F] raw, each batch beside the base of its rotation."""
    raw = np.zeros((len(table), len(features.names)))
    for rotation in np.unique(table.rotations):
        rows = np.flatnonzero(table.rotations == rotation)
        own = features if rotation == 0 else features.beside(table.bases[rotation])
        raw[rows] = own([table.batches[row] for row in rows])
    return raw

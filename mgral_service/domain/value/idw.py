"""The paper's reward: inverse-distance mean of the nearest records (MGRAL, section 3.5).

Gains are fractions of mAP; batches are positions in the pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from mgral_service.domain.arrays import BoolArray, FloatArray, IntArray
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.value.lookup import LookupTable
from mgral_service.domain.value.transport import (
    exact_distances,
    exact_pairs,
    fixed_directions,
    sketches,
    sliced_distances,
)

TOUCHING = 1e-9  # a nearer record counts as this far, embedding units
Distance = Literal["sliced", "exact", "one_hot"]
Cutoff = Literal["query", "table"]


class InverseDistance:
    """ports.ValueModel: the mean of the records under a threshold, weighted by 1 / distance.

    distance  between the embeddings of two batches: "sliced" or "exact" Wasserstein; "one_hot": L2
              between vectors of membership, the paper's first version
    cutoff    the threshold is mean - 1 sd of the "query"'s distances, or of the distances between
              records of the "table"

    An estimate is less the table's mean score. Where no record is near it is 0, with the table's
    spread as its standard deviation; elsewhere that is the spread over the root of the effective
    number of records.
    """

    def __init__(self, distance: Distance, cutoff: Cutoff) -> None:
        self._distance, self._cutoff = distance, cutoff

    def fit(self, table: LookupTable) -> None:
        """InvalidInput for a table of several pools, or of fewer than two records."""
        if len(table.pools) != 1:
            raise InvalidInput("table", "has batches of several pools, which have no distance")
        if len(table) < 2:
            raise InvalidInput("table", "fewer than two records: train two proxies or more")
        self._table, self._gains = table, table.gains()
        (self._pool,) = table.pools.values()
        self._members = np.zeros((len(table), len(self._pool.ids)))
        for row, batch in zip(self._members, table.batches, strict=True):
            row[batch] = 1.0
        directions = fixed_directions(self._pool.points.shape[1])
        self._projected = directions @ self._pool.points.T
        self._sketches = sketches(self._projected, table.batches)
        self._pairs = (
            exact_pairs(self._pool.points, table.batches)
            if self._distance == "exact"
            else self._distances(table.batches)
        )
        apart = self._pairs[np.triu_indices(len(table), k=1)]
        self._table_cutoff = float(apart.mean() - apart.std())
        self._spread = float(self._gains.std())

    def _distances(self, batches: Sequence[IntArray]) -> FloatArray:
        """[K, M] from batches to the table's records."""
        if self._distance == "exact":
            return exact_distances(self._pool.points, batches, self._table.batches)
        if self._distance == "sliced":
            return sliced_distances(sketches(self._projected, batches), self._sketches)
        shared = np.stack([self._members[:, batch].sum(axis=1) for batch in batches])
        sizes = np.array([[len(batch)] for batch in batches])
        squares = sizes + self._members.sum(axis=1) - 2.0 * shared
        return np.asarray(np.sqrt(np.maximum(squares, 0.0)))

    def _weights(self, distances: FloatArray) -> FloatArray:
        """[K, M] weights by distances [K, M] that sum to one; a row of zeros where none is near.
        Infinite distances never count.
        """
        finite = np.isfinite(distances)
        cutoff = np.full(len(distances), self._table_cutoff)
        if self._cutoff == "query":
            counts = finite.sum(axis=1)
            means = np.where(finite, distances, 0.0).sum(axis=1) / counts
            squares = np.where(finite, (distances - means[:, None]) ** 2, 0.0).sum(axis=1) / counts
            cutoff = means - np.sqrt(squares)
        near = finite & (distances < cutoff[:, None])
        weights = np.where(near, 1.0 / np.maximum(distances, TOUCHING), 0.0)
        total = weights.sum(axis=1, keepdims=True)
        return np.asarray(weights / np.where(total > 0, total, 1.0))

    def estimate(
        self, pool: CandidatePool, batches: Sequence[IntArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Gain over the table's mean: mean [K] and standard deviation [K]."""
        weights = self._weights(self._distances(batches))
        effective = np.maximum((weights**2).sum(axis=1), 0.0)
        far = ~weights.any(axis=1)
        return weights @ self._gains, self._spread * np.where(far, 1.0, np.sqrt(effective))

    def out_of_support(self, pool: CandidatePool, batches: Sequence[IntArray]) -> BoolArray:
        """[K] to which no record is nearer than the threshold."""
        return np.asarray(~self._weights(self._distances(batches)).any(axis=1))

    def held_out(self) -> FloatArray:
        """[M] each record read from the others, less the mean of the others: that mean is the lower
        the higher the record itself is, and would hide what is read.
        """
        apart = self._pairs.copy()
        np.fill_diagonal(apart, np.inf)
        weights = self._weights(apart)
        others = (self._gains.sum() - self._gains) / (len(self._gains) - 1)
        return np.asarray(np.where(weights.any(axis=1), weights @ self._gains - others, 0.0))

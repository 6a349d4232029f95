"""The paper's reward: inverse-distance mean of the nearest records.

Estimates and scores are fractions of mAP; batches are positions in the observation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np

from mgral_service.domain.arrays import BoolArray, FloatArray, IntArray
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.evidence import Reliability
from mgral_service.domain.lookup import LookupTable, query_cutoff, record_weights, table_cutoff
from mgral_service.domain.reliability import table_reliability
from mgral_service.domain.transport import (
    LEVELS,
    exact_distances,
    exact_pairs,
    sketches,
    sliced_distances,
)

Cutoff = Literal["query", "table", "predictive"]


class _InverseRead(ABC):
    """Inverse-distance mean of the records under a threshold, whatever the distance (MGRAL, section
    3.5); each record's weight is its table weight over its distance.

    cutoff  "query" or "table": mean - 1 sd of the distances (domain/lookup.py); "predictive": all
            records count

    Where no record is near, the estimate is the table's level, its standard deviation the table's
    spread, and `misses` counts one more. Elsewhere the standard deviation is the spread over the
    root of the records' effective number. "predictive" takes the spread of what was read and adds,
    in squares, the table's left-out error times d / t: d the distance to the nearest record, t the
    median distance of a record to its nearest outside its block. So it is small at a record, the
    left-out error at the usual distance, and grows from there as for a value of bounded slope.
    """

    def __init__(self, cutoff: Cutoff) -> None:
        self.misses = 0
        self._cutoff = cutoff

    def fit(self, table: LookupTable) -> None:
        """Keep the records and how far they are apart."""
        self.misses = 0
        self._table, self._deviations = table, table.deviations()
        self._pairs = self._pair_distances(table)
        counts = table.weights > 0
        self._table_cutoff = table_cutoff(self._pairs[np.ix_(counts, counts)])
        self._reading = self._left_out_weights()
        share = table.weights / max(float(table.weights.sum()), 1e-300)
        self._spread = float(np.sqrt(share @ self._deviations**2))
        errors = self._leave_out(self._deviations[None])[0] - self._deviations
        self._error = float(np.sqrt(share @ errors**2))
        apart = self._pairs.copy()
        for block in table.blocks:
            apart[np.ix_(block, block)] = np.inf
        nearest = apart[:, counts].min(axis=1, initial=np.inf)[counts]
        self._usual = float(np.median(nearest)) if len(nearest) > 1 else 0.0

    @abstractmethod
    def _pair_distances(self, table: LookupTable) -> FloatArray:
        """[M, M] between the table's records."""

    @abstractmethod
    def _distances(self, batches: Sequence[IntArray]) -> FloatArray:
        """[K, M] from batches to the table's records."""

    def _weigh(self, distances: FloatArray, counts: FloatArray) -> FloatArray | None:
        """[M] weights that sum to one, of records at `distances` [M] that count so much [M]; None
        if none is near.
        """
        rows = np.flatnonzero(counts > 0)
        if not len(rows):
            return None
        near = record_weights(distances[rows], self._threshold(distances[rows]))
        if near is None:
            return None
        weights = np.zeros(len(distances))
        weights[rows] = near * counts[rows]
        return np.asarray(weights / weights.sum())

    def _threshold(self, distances: FloatArray) -> float:
        if self._cutoff == "query":
            return query_cutoff(distances)
        return self._table_cutoff if self._cutoff == "table" else np.inf

    def estimate(self, batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        """Mean [K] and standard deviation [K]."""
        gains, sds = np.zeros(len(batches)), np.full(len(batches), self._spread)
        for at, distances in enumerate(self._distances(batches)):
            weights = self._weigh(distances, self._table.weights)
            if weights is None:
                self.misses += 1
            else:
                gains[at] = weights @ self._deviations
                sds[at] = self._deviation(weights, distances, float(gains[at]))
        return self._table.level + gains, sds

    def far(self, batches: Sequence[IntArray]) -> BoolArray:
        """[K] to which no record is near; not counted as misses."""
        counts = self._table.weights
        return np.array([self._weigh(one, counts) is None for one in self._distances(batches)])

    def _deviation(self, weights: FloatArray, distances: FloatArray, gain: float) -> float:
        """Standard deviation of a mean with these weights [M]."""
        effective = 1.0 / float(weights @ weights)
        if self._cutoff != "predictive":
            return float(self._spread / np.sqrt(effective))
        read = float(weights @ (self._deviations - gain) ** 2) / effective
        nearest = float(distances[weights > 0].min())
        reach = nearest / self._usual if self._usual > 0 else float(nearest > 0)
        return float(np.sqrt(read + (self._error * reach) ** 2))

    def left_out(self) -> FloatArray:
        """[M] each record read from those that are not of its block (LookupTable.blocks); misses
        are not counted.
        """
        level = self._table.scores - self._deviations
        return np.asarray(level + self._leave_out(self._deviations[None])[0])

    def _leave_out(self, deviations: FloatArray) -> FloatArray:
        """[R, M] the same for rows of deviations [R, M]: an estimate is linear in them."""
        return np.asarray(deviations @ self._reading.T)

    def _left_out_weights(self) -> FloatArray:
        """[M, M] the weights with which each record is read from others: all alike where none is
        near. What a block reads on average is taken off, as its level is free.
        """
        reading = np.zeros_like(self._pairs)
        for block in self._table.blocks:
            counts = self._table.weights.copy()
            counts[block] = 0.0
            for at in block:
                weights = self._weigh(self._pairs[at], counts)
                reading[at] = counts / max(counts.sum(), 1e-300) if weights is None else weights
            if len(block) > 1:
                reading[block] -= reading[block].mean(axis=0)
        return reading

    def reliability(self, rng: np.random.Generator) -> Reliability:
        """Rank correlation of what left-out estimates say beyond the mean with the measurements."""
        return table_reliability(self._table, self._leave_out, rng)


class InverseDistance(_InverseRead):
    """The paper's read, by the Wasserstein distance between batches' embeddings.

    points      [N, D] standardised embeddings of the observation
    directions  [P, D] of the sketches
    distance    "sliced" or "exact"
    """

    def __init__(
        self,
        points: FloatArray,
        directions: FloatArray,
        distance: Literal["sliced", "exact"],
        cutoff: Cutoff,
    ) -> None:
        super().__init__(cutoff)
        self._points, self._distance = points, distance
        self._projected = directions @ points.T

    def fit(self, table: LookupTable) -> None:
        """Keep the records. InvalidInput if their sketches were made otherwise than this model
        makes them.
        """
        length = len(self._projected) * LEVELS
        if self._distance == "sliced" and table.sketches.shape[1:] != (length,):
            raise InvalidInput(
                "table.sketches",
                f"have {table.sketches.shape[-1]} numbers, not {length}: "
                "they were made by another version; start a new cycle",
            )
        super().fit(table)

    def _pair_distances(self, table: LookupTable) -> FloatArray:
        if self._distance == "exact":
            return exact_pairs(self._points, table.batches)
        return sliced_distances(table.sketches, table.sketches)

    def _distances(self, batches: Sequence[IntArray]) -> FloatArray:
        if self._distance == "exact":
            return exact_distances(self._points, batches, self._table.batches)
        return sliced_distances(sketches(self._projected, batches), self._table.sketches)


class OneHot(_InverseRead):
    """The paper's first version: batches as vectors of membership among the observation's images,
    and the L2 distance between them.

    images  N, of the observation
    """

    def __init__(self, images: int, cutoff: Cutoff) -> None:
        super().__init__(cutoff)
        self._images = images

    def _pair_distances(self, table: LookupTable) -> FloatArray:
        self._members = np.zeros((len(table), self._images), dtype=np.bool_)
        for row, batch in zip(self._members, table.batches, strict=True):
            row[batch] = True
        self._sizes = self._members.sum(axis=1)
        return self._distances(table.batches)

    def _distances(self, batches: Sequence[IntArray]) -> FloatArray:
        shared = np.stack([self._members[:, batch].sum(axis=1) for batch in batches])
        sizes = np.array([[len(batch)] for batch in batches])
        return np.asarray(np.sqrt(sizes + self._sizes - 2.0 * shared))

"""The lookup table (MGRAL, section 3.5): measured batches, read by the distance of a new batch to
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mgral_service.domain.arrays import BoolArray, FloatArray, IntArray
from mgral_service.domain.records import LookupRecord, Source


@dataclass(frozen=True, slots=True, eq=False)
class LookupTable:
    """Records as arrays, ordered by index.

    batches    M arrays of positions in the observation's ids
    sketches   [M, F] quantile sketches (domain/transport.py)
    scores     [M] measured mAP, fractions
    designs    what drew each batch
    indices    [M] record indices; seconds [M] each proxy's training time
    sources    what each record measures; rotations [M] beside which base
    weights    [M] in [0, 1], how far each record counts
    bases      positions of the labelled images of each rotation, 0: all; without any, the table is
               of rotation 0 alone
    """

    batches: tuple[IntArray, ...]
    sketches: FloatArray
    scores: FloatArray
    designs: tuple[str, ...]
    indices: IntArray
    seconds: FloatArray
    sources: tuple[Source, ...]
    rotations: IntArray
    weights: FloatArray
    bases: tuple[IntArray, ...] = ()

    def __len__(self) -> int:
        return len(self.batches)

    @property
    def groups(self) -> IntArray:
        """[M] a number for each source and rotation: records of a group share a level."""
        seen = [source == "hindsight" for source in self.sources]
        return 2 * self.rotations + np.array(seen, dtype=np.int64)

    @property
    def blocks(self) -> tuple[IntArray, ...]:
        """Rows that are left out together, so that what is left speaks of a record as it does of a
        batch of the pool: a record of the pool by itself; hindsight records, whose images the pool
        does not hold, with all of their rotation, if another one counts.
        """
        counted = np.unique(self.rotations[(self.rotations > 0) & (self.weights > 0)])
        alone = np.flatnonzero(self.rotations == 0 if len(counted) > 1 else self.rotations >= 0)
        together = counted if len(counted) > 1 else ()
        return (
            *(np.array([row]) for row in alone),
            *(np.flatnonzero(self.rotations == rotation) for rotation in together),
        )

    @property
    def blocked(self) -> BoolArray:
        """[M] which records are left out with others."""
        found = np.zeros(len(self), dtype=np.bool_)
        for block in self.blocks:
            found[block] = len(block) > 1
        return found

    def deviations(self) -> FloatArray:
        """[M] scores less the weighted mean of their group (the plain one where nothing counts)."""
        centred = self.scores.copy()
        for group in np.unique(self.groups):
            rows = self.groups == group
            counts = self.weights[rows]
            centred[rows] -= np.average(centred[rows], weights=counts if counts.any() else None)
        rounding = 1e-12 * np.abs(self.scores).max(initial=0.0)
        return np.where(np.abs(centred) > rounding, centred, 0.0)

    @property
    def level(self) -> float:
        """Mean score of the pool's records, or without any that counts, of those that do: what
        deviations are told against.
        """
        own = np.where(self.rotations == 0, self.weights, 0.0)
        counts = own if own.any() else self.weights
        return float(np.average(self.scores, weights=counts if counts.any() else None))

    @classmethod
    def of(
        cls,
        records: Sequence[LookupRecord],
        ids: Sequence[str],
        bases: Sequence[Sequence[str]] = (),
    ) -> LookupTable:
        """From stored records; `ids` are the observation's. KeyError for a record of images not
        observed.
        """
        ordered = sorted(records, key=lambda record: record.index)
        position = {name: at for at, name in enumerate(ids)}

        def place(names: Sequence[str]) -> IntArray:
            return np.array([position[name] for name in names], dtype=np.int64)

        return cls(
            tuple(place(record.batch) for record in ordered),
            np.array([record.sketch for record in ordered], dtype=np.float64),
            np.array([record.score for record in ordered], dtype=np.float64),
            tuple(record.design for record in ordered),
            np.array([record.index for record in ordered], dtype=np.int64),
            np.array([record.seconds for record in ordered], dtype=np.float64),
            tuple(record.source for record in ordered),
            np.array([record.rotation for record in ordered], dtype=np.int64),
            np.ones(len(ordered)),
            tuple(place(base) for base in bases),
        )


TOUCHING = 1e-9  # a nearer record counts as this far, embedding units


def record_weights(distances: FloatArray, cutoff: float) -> FloatArray | None:
    """[M] inverse-distance weights that sum to one, 0 from `cutoff` on; None if all are 0."""
    near = distances < cutoff
    if not near.any():
        return None
    weights = np.where(near, 1.0 / np.maximum(distances, TOUCHING), 0.0)
    return np.asarray(weights / weights.sum())


def query_cutoff(distances: FloatArray) -> float:
    """The paper's threshold read per query: mean - 1 sd of this query's distances [M]."""
    return float(distances.mean() - distances.std())


def table_cutoff(pairs: FloatArray) -> float:
    """The same read once for the table: mean - 1 sd of the distances [M, M] between different
    records.
    """
    apart = pairs[np.triu_indices(len(pairs), k=1)]
    return float(apart.mean() - apart.std()) if apart.size else 0.0

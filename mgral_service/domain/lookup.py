"""The lookup table (MGRAL, section 3.5): measured batches, read by the distance of a new batch to
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.records import LookupRecord


@dataclass(frozen=True, slots=True, eq=False)
class LookupTable:
    """Records as arrays, ordered by index.

    batches   M arrays of positions in the observation's ids
    sketches  [M, F] quantile sketches (domain/transport.py)
    scores    [M] measured mAP, fractions
    designs   what drew each batch
    indices   [M] record indices; seconds [M] each proxy's training time
    """

    batches: tuple[IntArray, ...]
    sketches: FloatArray
    scores: FloatArray
    designs: tuple[str, ...]
    indices: IntArray
    seconds: FloatArray

    def __len__(self) -> int:
        return len(self.batches)

    @classmethod
    def of(cls, records: Sequence[LookupRecord], ids: Sequence[str]) -> LookupTable:
        """From stored records; `ids` are the observation's. KeyError for a record of images not
        observed.
        """
        ordered = sorted(records, key=lambda record: record.index)
        position = {name: at for at, name in enumerate(ids)}
        return cls(
            tuple(
                np.array([position[name] for name in record.batch], dtype=np.int64)
                for record in ordered
            ),
            np.array([record.sketch for record in ordered], dtype=np.float64),
            np.array([record.score for record in ordered], dtype=np.float64),
            tuple(record.design for record in ordered),
            np.array([record.index for record in ordered], dtype=np.int64),
            np.array([record.seconds for record in ordered], dtype=np.float64),
        )


TOUCHING = 1e-9  # a nearer record counts as this far, embedding units


@dataclass(frozen=True, slots=True)
class MapEstimate:
    """value: fraction of mAP; support: records it rests on; effective: their number by weight."""

    value: float
    support: int
    effective: float


def record_weights(distances: FloatArray, cutoff: float) -> FloatArray | None:
    """[M] inverse-distance weights that sum to one, 0 from `cutoff` on; None if all are 0."""
    near = distances < cutoff
    if not near.any():
        return None
    weights = np.where(near, 1.0 / np.maximum(distances, TOUCHING), 0.0)
    return np.asarray(weights / weights.sum())


def estimate_map(distances: FloatArray, maps: FloatArray, cutoff: float) -> MapEstimate | None:
    """Inverse-distance mean over the records nearer than `cutoff`; None if there are none
    (MGRAL, section 3.5).

    distances [M]  from batch to record, Wasserstein, embedding units, >= 0
    maps      [M]  fraction in [0, 1]
    """
    weights = record_weights(distances, cutoff)
    if weights is None:
        return None
    return MapEstimate(
        float(weights @ maps),
        support=int(np.count_nonzero(weights)),
        effective=float(1.0 / (weights @ weights)),
    )


def query_cutoff(distances: FloatArray) -> float:
    """The paper's threshold read per query: mean - 1 sd of this query's distances [M]."""
    return float(distances.mean() - distances.std())


def table_cutoff(pairs: FloatArray) -> float:
    """The same read once for the table: mean - 1 sd of the distances [M, M] between different
    records.
    """
    apart = pairs[np.triu_indices(len(pairs), k=1)]
    return float(apart.mean() - apart.std()) if apart.size else 0.0

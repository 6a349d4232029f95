"""The lookup table (MGRAL, section 3.5): measured batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.records import LookupRecord

POOL = -1  # in LookupTable.folds: the pool, no fold


@dataclass(frozen=True, slots=True, eq=False)
class LookupTable:
    """Records, ordered by index, and the candidate pools their batches are of.

    pools    by fold (POOL: the pool)
    batches  M arrays of positions in the pool of the record's fold
    scores   [M] measured mAP, fractions
    folds    [M] the record's fold, or POOL
    """

    records: tuple[LookupRecord, ...]
    pools: Mapping[int, CandidatePool]
    batches: tuple[IntArray, ...]
    scores: FloatArray
    folds: IntArray

    def __len__(self) -> int:
        return len(self.records)

    @classmethod
    def of(cls, records: Sequence[LookupRecord], pools: Sequence[CandidatePool]) -> LookupTable:
        """KeyError for a record of images that are in none of its fold's pool."""
        by_fold = {POOL if pool.fold is None else pool.fold: pool for pool in pools}
        ordered = tuple(sorted(records, key=lambda record: record.index))
        folds = [POOL if record.fold is None else record.fold for record in ordered]
        return cls(
            ordered,
            by_fold,
            tuple(
                by_fold[fold].positions(record.batch)
                for record, fold in zip(ordered, folds, strict=True)
            ),
            np.array([record.score for record in ordered], dtype=np.float64),
            np.array(folds, dtype=np.int64),
        )

    def gains(self) -> FloatArray:
        """[M] scores less the mean of their fold."""
        gains = self.scores.copy()
        for fold in np.unique(self.folds):
            rows = self.folds == fold
            gains[rows] -= gains[rows].mean()
        rounding = 1e-12 * np.abs(self.scores).max(initial=0.0)
        return np.where(np.abs(gains) > rounding, gains, 0.0)

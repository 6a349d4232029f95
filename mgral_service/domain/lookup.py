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

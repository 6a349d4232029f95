"""Tables made of tables: fewer records of one, those of two, or with other weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mgral_service.domain.arrays import IntArray
from mgral_service.domain.hindsight import weigh
from mgral_service.domain.lookup import LookupTable


def thinned(table: LookupTable, records: int) -> LookupTable:
    """Records evenly spaced in each source and rotation, so that these and designs keep their
    shares.
    """
    by_group = np.lexsort((table.indices, table.groups))
    spaced = np.linspace(0, len(table) - 1, records).round().astype(int)
    return rows(table, np.sort(by_group[spaced]))


def rows(table: LookupTable, at: IntArray) -> LookupTable:
    """The records at these places."""
    return replace(
        table,
        batches=tuple(table.batches[row] for row in at),
        sketches=table.sketches[at],
        scores=table.scores[at],
        designs=tuple(table.designs[row] for row in at),
        indices=table.indices[at],
        seconds=table.seconds[at],
        sources=tuple(table.sources[row] for row in at),
        rotations=table.rotations[at],
        weights=table.weights[at],
    )


def beside(one: LookupTable, other: LookupTable) -> LookupTable:
    """The records of both; bases: those of one, as the other is of rotation 0 alone."""
    return LookupTable(
        (*one.batches, *other.batches),
        np.concatenate([one.sketches, other.sketches]),
        np.concatenate([one.scores, other.scores]),
        (*one.designs, *other.designs),
        np.arange(len(one) + len(other)),
        np.concatenate([one.seconds, other.seconds]),
        (*one.sources, *other.sources),
        np.concatenate([one.rotations, other.rotations]),
        np.concatenate([one.weights, other.weights]),
        one.bases,
    )


def counted(table: LookupTable, rotations: int) -> LookupTable:
    """As `weigh`, but each source by itself, so that records of the pool count in full."""
    weights = table.weights.copy()
    for part in (table.rotations == 0, table.rotations > 0):
        if part.any():
            own = rows(table, np.flatnonzero(part))
            weights[part] = weigh(own, rotations, np.random.default_rng(0))[0].weights
    return replace(table, weights=weights)

"""What seeds alone do to a table's scores, by batches that were measured twice."""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2

from mgral_service.domain.evidence import Noise
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.records import AGAIN

_LEAST = 2  # degrees of freedom


def seed_noise(table: LookupTable) -> Noise | None:
    """From records of design AGAIN and those of the same batch, source and rotation; None with too
    few of them. Of records that count in full, as the reliability is.

    A seed's effect on all batches of a source and rotation alike is taken off, as records are told
    against the mean of theirs (LookupTable.deviations).
    """
    full = table.weights >= table.weights.max()
    first: dict[tuple[int, frozenset[int]], int] = {}
    apart: dict[int, list[float]] = {}
    for at, batch in enumerate(table.batches):
        group = int(table.groups[at])
        before = first.setdefault((group, frozenset(batch.tolist())), at)
        if table.designs[at] == AGAIN and before != at and full[before]:
            apart.setdefault(group, []).append(float(table.scores[at] - table.scores[before]))
    free = sum(len(some) - 1 for some in apart.values())
    if free < _LEAST:
        return None
    squares = sum(float(np.var(some)) * len(some) for some in apart.values())
    seeds = (squares / (2 * free)) ** 0.5
    high, low = free / chi2.ppf([0.025, 0.975], free)
    groups = np.unique(table.groups[full])
    total = float((table.deviations()[full] ** 2).sum())
    batches = (total / max(int(full.sum()) - len(groups), 1)) ** 0.5
    pairs = sum(map(len, apart.values()))
    return Noise(pairs, seeds, float(seeds * low**0.5), float(seeds * high**0.5), batches)

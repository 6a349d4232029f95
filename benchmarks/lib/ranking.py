"""How alike two measurements of the same batches rank them, and how sure that is."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

from mgral_service.domain.arrays import FloatArray, IntArray

DRAWS = 2000
NEVER = 1e6


@dataclass(frozen=True, slots=True)
class Agreement:
    """value, with the 2.5 and 97.5 percentiles of a bootstrap over batches."""

    value: float
    low: float
    high: float

    def figures(self, name: str) -> dict[str, float]:
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


def between(first: FloatArray, second: FloatArray, ranks: bool = True) -> Agreement:
    """Of measurements [N, S] and [N, R] of N batches: the mean correlation of a column of the first
    and a column of the second, over all pairs; Spearman's, or Pearson's without `ranks`.
    """
    pairs = [(a, b) for a in range(first.shape[1]) for b in range(second.shape[1])]
    return _bootstrap(first, second, pairs, ranks)


def within(measured: FloatArray, ranks: bool = True) -> Agreement:
    """Of measurements [N, S]: the mean correlation over the pairs of columns, seed to seed."""
    return _bootstrap(measured, measured, list(combinations(range(measured.shape[1]), 2)), ranks)


def spreads(measured: FloatArray) -> tuple[float, float]:
    """(seed spread, batch spread) of measurements [N, S]: standard deviations by a two-way analysis
    of variance. What a seed does to all batches alike is in neither.
    """
    batches, seeds = measured.shape
    rest = measured - measured.mean(0) - measured.mean(1, keepdims=True) + measured.mean()
    noise = float((rest**2).sum()) / ((batches - 1) * (seeds - 1))
    between_batches = float(measured.mean(1).var(ddof=1)) - noise / seeds
    return noise**0.5, max(0.0, between_batches) ** 0.5


def records_to_rank(noise: float, spread: float, sure: float = 0.9) -> float:
    """Records of each of two random batches, so that the higher mean is the better batch with
    probability `sure`; NEVER at most.

    Two batches differ by N(0, 2 spread^2), the means of n records by N(0, 2 noise^2 / n) more: the
    order is right with probability 1/2 + atan(sqrt(n) spread / noise) / pi.
    """
    if spread == 0:
        return NEVER
    return min(NEVER, max(1.0, float(np.tan(np.pi * (sure - 0.5)) * noise / spread) ** 2))


def _bootstrap(
    first: FloatArray, second: FloatArray, pairs: list[tuple[int, int]], ranks: bool
) -> Agreement:
    rng = np.random.default_rng(0)

    def value(rows: IntArray) -> float:
        a, b = first[rows], second[rows]
        if ranks:
            a, b = rankdata(a, axis=0), rankdata(b, axis=0)
        return float(np.mean([_correlation(a[:, i], b[:, j]) for i, j in pairs]))

    drawn = [value(rng.integers(len(first), size=len(first))) for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Agreement(value(np.arange(len(first))), float(low), float(high))


def _correlation(first: FloatArray, second: FloatArray) -> float:
    """0 where either does not vary."""
    first, second = first - first.mean(), second - second.mean()
    scale = float(first @ first * (second @ second)) ** 0.5
    return float(first @ second) / scale if scale > 0 else 0.0

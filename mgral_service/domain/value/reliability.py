"""How far a value model's estimates can be trusted: their rank correlation with measurements."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.report import Reliability

_RESAMPLES = 1000


def rank_reliability(
    estimates: FloatArray, measured: FloatArray, groups: IntArray, rng: np.random.Generator
) -> Reliability | None:
    """Spearman's rho of held-out estimates [M] and measured gains [M] of records in groups [M],
    both less the mean of their group; None for fewer than three records.

    The 95 % interval covers two: the percentile interval of a bootstrap over records, and rho less
    what chance reaches when measurements are reshuffled within their groups. The bootstrap alone is
    too narrow, because records of a fold share images. Where estimates or measurements are
    constant, nothing can be ranked: 0, from -1 to 1.
    """
    count = len(measured)
    if count < 3:
        return None
    estimates, measured = (_centred(values, groups) for values in (estimates, measured))
    if not (np.ptp(estimates) > 1e-12 and np.ptp(measured) > 1e-12):
        return Reliability(records=count, spearman=0.0, low=-1.0, high=1.0)
    rho = float(_spearman(estimates[None], measured[None])[0])
    drawn = rng.integers(count, size=(_RESAMPLES, count))
    resampled = np.quantile(_spearman(estimates[drawn], measured[drawn]), [0.025, 0.975])
    chance = np.tile(measured, (_RESAMPLES, 1))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        chance[:, members] = rng.permuted(chance[:, members], axis=1)
    by_chance = rho - np.quantile(
        _spearman(np.broadcast_to(estimates, chance.shape), chance), [0.975, 0.025]
    )
    return Reliability(
        records=count,
        spearman=rho,
        low=max(float(min(resampled[0], by_chance[0])), -1.0),
        high=min(float(max(resampled[1], by_chance[1])), 1.0),
    )


def _centred(values: FloatArray, groups: IntArray) -> FloatArray:
    centred = values.astype(np.float64)
    for group in np.unique(groups):
        centred[groups == group] -= centred[groups == group].mean()
    return centred


def _spearman(first: FloatArray, second: FloatArray) -> FloatArray:
    """[R] row by row of [R, M] and [R, M]; 0 where a row is constant."""
    ranks = [rankdata(values, axis=1) for values in (first, second)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / np.where(size > 0, size, 1.0))

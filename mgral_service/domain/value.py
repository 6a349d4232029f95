"""What a batch is worth, estimated from the table's records: the paper's inverse distance, and
ridge regression.

Both are `ports.ValueModel`s. Estimates and scores are fractions of mAP; batches are positions in
the observation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.stats import rankdata

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.features import BatchFeatures
from mgral_service.domain.lookup import (
    LookupTable,
    estimate_map,
    query_cutoff,
    record_weights,
    table_cutoff,
)
from mgral_service.domain.ports import ValueModel
from mgral_service.domain.records import Reliability
from mgral_service.domain.specs import TableSpec
from mgral_service.domain.transport import (
    LEVELS,
    exact_distance,
    fixed_directions,
    quantiles,
    sliced_distance,
    standardise,
)

_RESAMPLES = 1000
_PENALTIES = np.logspace(-3, 3, 25)  # of the ridge, a record


def rank_reliability(
    left_out: Callable[[FloatArray], FloatArray], measured: FloatArray, rng: np.random.Generator
) -> Reliability:
    """Spearman's rho between what left-out estimates say beyond the mean and measurements [M].

    `left_out` maps rows of measurements [R, M] to rows of left-out estimates [R, M]. The 95 %
    interval covers two: the percentile interval of a bootstrap over records, and rho less what
    reshuffled measurements reach. The bootstrap alone is too narrow, because left-out estimates
    share records: with it, pure noise passed for informative in 6 to 13 tables of 100.
    Where measurements or estimates are constant, or records fewer than three, nothing can be
    ranked: 0, from -1 to 1.
    """
    count = len(measured)
    if count < 3 or _constant(measured):
        return Reliability(count, 0.0, -1.0, 1.0)
    estimates = _beyond_mean(left_out(measured[None]), measured[None])
    if _constant(estimates):
        return Reliability(count, 0.0, -1.0, 1.0)
    rho = float(_spearman(estimates, measured[None])[0])
    drawn = rng.integers(count, size=(_RESAMPLES, count))
    resampled = np.quantile(_spearman(estimates[0][drawn], measured[drawn]), [0.025, 0.975])
    shuffled = rng.permuted(np.tile(measured, (_RESAMPLES, 1)), axis=1)
    chance = _spearman(_beyond_mean(left_out(shuffled), shuffled), shuffled)
    by_chance = rho - np.quantile(chance, [0.975, 0.025])
    low, high = min(resampled[0], by_chance[0]), max(resampled[1], by_chance[1])
    return Reliability(count, rho, max(float(low), -1.0), min(float(high), 1.0))


def _constant(values: FloatArray) -> bool:
    return bool(np.ptp(values) <= 1e-9 * max(float(np.abs(values).max()), 1e-300))


def _spearman(first: FloatArray, second: FloatArray) -> FloatArray:
    """[R] row by row of [R, M] and [R, M]; 0 where a row is constant."""
    a, b = (rankdata(values, axis=1) for values in (first, second))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    size = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray((a * b).sum(axis=1) / np.where(size > 0, size, 1.0))


def _beyond_mean(left_out: FloatArray, scores: FloatArray) -> FloatArray:
    """[R, M] left-out estimates less the mean of the other records.

    That mean is the lower the higher the record itself is: leaving it in would make a model that
    knows nothing look reliably wrong, where it should look silent.
    """
    others = max(scores.shape[1] - 1, 1)
    beyond = left_out - (scores.sum(axis=1, keepdims=True) - scores) / others
    noise = 1e-9 * np.maximum(np.ptp(scores, axis=1, keepdims=True), 1e-300)
    return np.asarray(np.where(np.abs(beyond) < noise, 0.0, beyond))


class InverseDistance:
    """The paper's read (MGRAL, section 3.5): inverse-distance mean of the records under a
    threshold.

    points      [N, D] standardised embeddings of the observation
    directions  [P, D] of the sketches
    distance    "sliced" or "exact" Wasserstein; cutoff: "query" or "table"

    Where no record is near, the estimate is the table's mean, its standard deviation the table's
    spread, and `misses` counts one more. Elsewhere the standard deviation is the spread over the
    root of the records' effective number.
    """

    def __init__(
        self,
        points: FloatArray,
        directions: FloatArray,
        distance: Literal["sliced", "exact"],
        cutoff: Literal["query", "table"],
    ) -> None:
        self.misses = 0
        self._points, self._projected = points, points @ directions.T
        self._distance, self._cutoff = distance, cutoff
        self._scores = np.zeros(0)
        self._sketches = np.zeros((0, self._projected.shape[1] * LEVELS))
        self._batches: tuple[IntArray, ...] = ()
        self._pairs = np.zeros((0, 0))
        self._table_cutoff = 0.0

    def fit(self, table: LookupTable) -> None:
        """Keep the records. InvalidInput if their sketches were made otherwise than this model
        makes them.
        """
        if self._distance == "sliced" and table.sketches.shape[1:] != self._sketches.shape[1:]:
            raise InvalidInput(
                "table.sketches",
                f"have {table.sketches.shape[-1]} numbers, not {self._sketches.shape[1]}: "
                "they were made by another version; start a new cycle",
            )
        self.misses = 0
        self._scores, self._sketches = table.scores, table.sketches
        self._batches = table.batches
        self._pairs = self._distances(table.batches, table.sketches)
        self._table_cutoff = table_cutoff(self._pairs)

    def _distances(self, batches: Sequence[IntArray], sketches: FloatArray | None) -> FloatArray:
        """[K, M] from batches to records."""
        if self._distance == "exact":
            return np.array(
                [
                    [
                        exact_distance(self._points[batch], self._points[record])
                        for record in self._batches
                    ]
                    for batch in batches
                ]
            )
        if sketches is None:
            sketches = np.stack([quantiles(self._projected[batch], LEVELS) for batch in batches])
        return sliced_distance(sketches[:, None], self._sketches[None])

    def _threshold(self, distances: FloatArray) -> float:
        return query_cutoff(distances) if self._cutoff == "query" else self._table_cutoff

    def estimate(self, batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        """Mean [K] and standard deviation [K]."""
        means = np.full(len(batches), self._scores.mean())
        spread = float(self._scores.std())
        sds = np.full(len(batches), spread)
        for at, row in enumerate(self._distances(batches, None)):
            read = estimate_map(row, self._scores, self._threshold(row))
            if read is None:
                self.misses += 1
            else:
                means[at], sds[at] = read.value, spread / np.sqrt(read.effective)
        return means, sds

    def left_out(self) -> FloatArray:
        """[M] each record read from all others; misses are not counted."""
        return np.asarray(self._leave_out(self._scores[None])[0])

    def _leave_out(self, scores: FloatArray) -> FloatArray:
        """[R, M] the same for rows of scores [R, M]: an estimate is linear in the scores."""
        count = scores.shape[1]
        reading = np.zeros((count, count))
        for at, row in enumerate(self._pairs):
            others = np.arange(count) != at
            weights = record_weights(row[others], self._threshold(row[others]))
            reading[at, others] = 1.0 / max(count - 1, 1) if weights is None else weights
        return np.asarray(scores @ reading.T)

    def reliability(self, rng: np.random.Generator) -> Reliability:
        """Rank correlation of what left-out estimates say beyond the mean with the measurements."""
        return rank_reliability(self._leave_out, self._scores, rng)


class Ridge:
    """Linear regression on batch features with a penalty that the left-out errors choose.

    Features are standardised over the records, the intercept is free, everything is closed form in
    the singular values. The standard deviation is that of the mean: noise / records, plus what the
    features leave open; along directions that the table never varied it is the prior's.
    """

    def __init__(self, features: BatchFeatures) -> None:
        self.misses = 0  # a ridge answers everywhere; its standard deviation says how well
        self._features = features
        self._centre = self._scale = np.zeros(0)
        self._left = self._axes = np.zeros((0, 0))
        self._singular = np.zeros(0)
        self._scores = self._left_out = np.zeros(0)
        self._theta = np.zeros(0)
        self._mean = self._noise = 0.0
        self._size = 1
        self.penalty = 0.0

    def fit(self, table: LookupTable) -> None:
        """Fit to two records or more; InvalidInput for fewer."""
        count = len(table)
        if count < 2:
            raise InvalidInput("table", f"has {count} records: a ridge needs two or more")
        raw = self._features(table.batches)
        self._centre = raw.mean(axis=0)
        spread = raw.std(axis=0)
        varies = spread > 1e-9 * np.maximum(np.abs(self._centre), 1.0)
        self._scale = np.where(varies, spread, np.inf)
        left, singular, axes = np.linalg.svd(
            (raw - self._centre) / self._scale, full_matrices=False
        )
        kept = singular > 1e-9 * max(float(singular[0]), 1e-300)
        self._left, self._singular, self._axes = left[:, kept], singular[kept], axes[kept]
        self._scores, self._mean = table.scores, float(table.scores.mean())
        self._size = round(float(np.mean([len(batch) for batch in table.batches])))
        estimates, penalties = self._leave_out(self._scores[None])
        self._left_out, self.penalty = estimates[0], float(penalties[0])
        centred = self._scores - self._mean
        inner = self._left.T @ centred
        squares = self._singular**2
        shrink = squares / (squares + self.penalty)
        self._theta = self._axes.T @ (self._singular / (squares + self.penalty) * inner)
        freedom = max(count - 1.0 - float(shrink.sum()), 1.0)
        misfit = centred - self._left @ (shrink * inner)
        self._noise = float(np.sqrt((misfit**2).sum() / freedom))

    def _leave_out(self, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
        """For rows of scores [R, M]: left-out estimates [R, M] by residual / (1 - h), and the
        penalty [R] whose left-out errors are least.
        """
        count = scores.shape[1]
        centred = scores - scores.mean(axis=1, keepdims=True)
        inner = centred @ self._left
        squares = self._singular**2
        best = np.full((len(scores), 1), np.inf)
        errors, penalties = np.zeros_like(scores), np.zeros((len(scores), 1))
        for penalty in _PENALTIES * count:
            shrink = squares / (squares + penalty)
            hat = np.minimum(1.0 / count + (self._left**2) @ shrink, 1.0 - 1e-9)
            error = (centred - (inner * shrink) @ self._left.T) / (1.0 - hat)
            total = (error**2).sum(axis=1, keepdims=True)
            errors = np.where(total < best, error, errors)
            penalties = np.where(total < best, penalty, penalties)
            best = np.minimum(total, best)
        return scores - errors, penalties[:, 0]

    def estimate(self, batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        """Mean [K] and standard deviation [K]."""
        scaled = (self._features(batches) - self._centre) / self._scale
        along = scaled @ self._axes.T
        beyond = np.maximum((scaled**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        leverage = (along**2 / (self._singular**2 + self.penalty)).sum(axis=1)
        open_share = 1.0 / len(self._scores) + leverage + beyond / self.penalty
        return self._mean + scaled @ self._theta, self._noise * np.sqrt(open_share)

    def left_out(self) -> FloatArray:
        """[M] each record from all others: residual / (1 - h), no refit."""
        return self._left_out

    def reliability(self, rng: np.random.Generator) -> Reliability:
        """Rank correlation of what left-out estimates say beyond the mean with the measurements."""
        return rank_reliability(lambda scores: self._leave_out(scores)[0], self._scores, rng)

    def image_values(self) -> FloatArray:
        """[N] what each image adds by the fitted weights, up to a constant
        (BatchFeatures.linear_values).
        """
        return self._features.linear_values(self._theta / self._scale, self._size)


def _inverse_distance(
    observation: PoolObservation, labelled: IntArray, classes: Sequence[str], spec: TableSpec
) -> ValueModel:
    points = standardise(observation.embeddings)
    return InverseDistance(points, fixed_directions(points.shape[1]), spec.distance, spec.cutoff)


def _ridge(
    observation: PoolObservation, labelled: IntArray, classes: Sequence[str], spec: TableSpec
) -> ValueModel:
    return Ridge(BatchFeatures(observation, labelled, classes))


VALUE_MODELS: Mapping[
    str, Callable[[PoolObservation, IntArray, Sequence[str], TableSpec], ValueModel]
] = {"idw": _inverse_distance, "ridge": _ridge}
"""By TableSpec.value_model: makes an unfitted model of an observation, its labelled positions,
classes and settings.
"""

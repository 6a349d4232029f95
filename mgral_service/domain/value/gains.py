"""How much a candidate gains over a uniform batch: measured in folds, shrunk toward a prior.

A candidate is a rule that picks a batch from any set of images. Gains are fractions of mAP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.records import LookupRecord
from mgral_service.domain.report import CandidateGain
from mgral_service.domain.value.lookup import LookupTable

UNIFORM = "uniform"
SPREAD = 0.01  # between datasets
PRIOR: Mapping[str, tuple[float, float]] = {
    UNIFORM: (0.0, 0.0),
    "entropy_root": (0.0125, SPREAD),
    "entropy_sum": (0.0115, SPREAD),
    "class_balance": (0.0077, SPREAD),
    "entropy_max": (0.0076, SPREAD),
    "entropy": (0.0037, SPREAD),
    "entropy_coreset": (-0.0057, SPREAD),
    "coreset": (-0.0062, SPREAD),
}
"""Mean gain in AP50 and its spread between datasets, by `python -m benchmarks.strategy_gains`; a
candidate that is not listed has mean 0 and SPREAD.
"""


def posterior(prior: float, prior_sd: float, measured: float, error: float) -> tuple[float, float]:
    """Mean and standard deviation of a gain ~ N(prior, prior_sd^2) that was measured with a normal
    standard error: the mean of both, weighted by their precisions.
    """
    if prior_sd == 0 or not np.isfinite(error):
        return prior, prior_sd
    if error == 0:
        return measured, 0.0
    precisions = prior_sd**-2 + error**-2
    return (prior * prior_sd**-2 + measured * error**-2) / precisions, precisions**-0.5


def candidate_gains(table: LookupTable | None, names: Sequence[str]) -> tuple[CandidateGain, ...]:
    """Of the candidates `names`: highest posterior gain first, ties in their order. Without a table
    the posterior is the prior.
    """
    measured = {} if table is None else measured_gains(table.records)
    gains = []
    for name in names:
        prior, prior_sd = PRIOR.get(name, (0.0, SPREAD))
        gain, error, records = measured.get(name, (0.0, np.inf, 0))
        mean, sd = posterior(prior, prior_sd, gain, error)
        gains.append(
            CandidateGain(
                name=name,
                records=records,
                measured=gain if records else None,
                error=float(error) if records and np.isfinite(error) else None,
                prior=prior,
                prior_sd=prior_sd,
                posterior=mean,
                posterior_sd=sd,
            )
        )
    return tuple(sorted(gains, key=lambda gain: -gain.posterior))


def measured_gains(records: Sequence[LookupRecord]) -> dict[str, tuple[float, float, int]]:
    """By candidate: its mean gain over the uniform batches of the same folds, the standard error,
    and the number of records. Folds without a uniform batch do not count.

    The model is score = level of the fold + gain of the candidate + noise. Noise is mostly which
    images a batch holds, so that of two records is correlated as far as their batches share images:
    folds whose candidate parts overlap measure nearly the same batch again. With R that correlation
    matrix, P the projection that removes levels and gains, and y the scores, the noise variance is
    y'Py / tr(PR), and a gain w'y has variance w'Rw times that.
    """
    zeros = {record.fold for record in records if record.role == UNIFORM}
    used = [
        record
        for record in records
        if record.fold in zeros and record.role in (UNIFORM, "candidate")
    ]
    if not used:
        return {}
    scores = np.array([record.score for record in used])
    folds = np.array([record.fold for record in used], dtype=np.float64)
    names = np.array([record.chosen_by for record in used])
    levels = folds[:, None] == np.unique(folds)
    effects = names[:, None] == np.unique(names[names != UNIFORM])
    design = np.column_stack([levels, effects]).astype(np.float64)
    projection = np.eye(len(used)) - design @ np.linalg.pinv(design)
    overlap = _overlap(used)
    free = float(np.trace(projection @ overlap))
    variance = float(scores @ projection @ scores) / free if free > 1e-9 else np.inf
    gains = {}
    for name in np.unique(names):
        weights = (names == name) / np.sum(names == name)
        for fold in np.unique(folds):
            uniform = (folds == fold) & (names == UNIFORM)
            weights = weights - weights[folds == fold].sum() * uniform / uniform.sum()
        share = max(float(weights @ overlap @ weights), 0.0)
        error = float(np.sqrt(variance * share)) if share > 1e-12 else 0.0
        gains[str(name)] = float(weights @ scores), error, int(np.sum(names == name))
    gains[UNIFORM] = 0.0, 0.0, gains[UNIFORM][2]
    return gains


def _overlap(records: Sequence[LookupRecord]) -> FloatArray:
    """[R, R] shared images of two batches over the root of the product of their sizes."""
    images = sorted({image_id for record in records for image_id in record.batch})
    column = {image_id: position for position, image_id in enumerate(images)}
    members = np.zeros((len(records), len(images)))
    for row, record in zip(members, records, strict=True):
        row[[column[image_id] for image_id in record.batch]] = len(record.batch) ** -0.5
    return np.asarray(members @ members.T)

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from mgral_service.domain.arrays import IntArray
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.value.features import BatchFeatures
from mgral_service.domain.value.gp import GaussianProcess
from mgral_service.domain.value.lookup import LookupTable
from mgral_service.domain.value.reliability import rank_reliability
from tests.domain.pools import measure, pool_of

FOLDS = [pool_of(80, 20, 12, fold, seed=fold) for fold in range(4)]
POOL = pool_of(300, 60, 40, seed=9)


def worth(pool: CandidatePool, batch: IntArray) -> float:
    """Another level in each fold, and gains by two features."""
    row = BatchFeatures(pool)([batch])[0]
    return float(0.2 + 0.05 * (pool.fold or 0) + 0.05 * row[0] + 0.03 * row[8])


def table_of(each: int = 12, noise: float = 0.0, seed: int = 0) -> LookupTable:
    rng = np.random.default_rng(seed)
    return measure(
        FOLDS, each, lambda pool, batch: worth(pool, batch) + noise * rng.standard_normal(), seed
    )


def test_what_folds_taught_ranks_batches_of_the_pool() -> None:
    model = GaussianProcess()
    model.fit(table_of(noise=0.002))
    batches = measure([POOL], 40, worth, seed=5)
    estimates, sds = model.estimate(POOL, batches.batches)
    assert spearmanr(estimates, batches.scores)[0] > 0.8
    assert (sds > 0).all()


def test_estimates_are_gains_over_a_uniform_batch_whatever_the_level_of_a_fold() -> None:
    model, lifted = GaussianProcess(), GaussianProcess()
    table = table_of()
    model.fit(table)
    raised = table.scores + 0.3 * table.folds
    lifted.fit(LookupTable(table.records, table.pools, table.batches, raised, table.folds))
    rng = np.random.default_rng(0)
    uniform = [rng.permutation(POOL.candidates)[:40] for _ in range(50)]
    estimates = model.estimate(POOL, uniform)[0]
    assert abs(estimates.mean()) < 0.005
    assert lifted.estimate(POOL, uniform)[0] == pytest.approx(estimates, abs=1e-6)


def test_batches_far_from_the_records_are_less_certain() -> None:
    model = GaussianProcess()
    model.fit(table_of(noise=0.002))
    order = POOL.candidates[np.argsort(POOL.entropy.mean[POOL.candidates])]
    rng = np.random.default_rng(0)
    uniform, extreme = rng.permutation(POOL.candidates)[:40], order[-40:]
    sds = model.estimate(POOL, [uniform, extreme])[1]
    assert sds[1] > sds[0]
    assert not model.out_of_support(POOL, [extreme]).any()


def test_a_held_out_fold_is_estimated_by_the_others_alone() -> None:
    table = table_of()
    model, other = GaussianProcess(), GaussianProcess()
    model.fit(table)
    rows = table.folds == 1
    spoilt = np.where(rows, table.scores[::-1], table.scores)
    other.fit(LookupTable(table.records, table.pools, table.batches, spoilt, table.folds))
    assert other.held_out()[rows] == pytest.approx(model.held_out()[rows])
    assert spearmanr(model.held_out()[rows], table.scores[rows])[0] > 0.8


def test_records_of_one_pool_are_held_out_in_parts() -> None:
    table = measure([POOL], 30, worth)
    model = GaussianProcess()
    model.fit(table)
    reliability = rank_reliability(
        model.held_out(), table.gains(), table.folds, np.random.default_rng(0)
    )
    assert reliability is not None
    assert reliability.informed


def test_noise_is_not_called_informative() -> None:
    informed = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        table = measure(FOLDS, 8, lambda pool, batch: float(rng.standard_normal()), seed)  # noqa: B023
        model = GaussianProcess()
        model.fit(table)
        found = rank_reliability(model.held_out(), table.gains(), table.folds, rng)
        assert found is not None
        informed += found.informed
    assert informed <= 2


def test_two_records_are_needed() -> None:
    with pytest.raises(InvalidInput, match="two"):
        GaussianProcess().fit(measure([POOL], 1, worth))

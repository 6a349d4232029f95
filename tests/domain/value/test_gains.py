from __future__ import annotations

import numpy as np
import pytest

from mgral_service.domain.records import LookupRecord
from mgral_service.domain.value.gains import (
    PRIOR,
    UNIFORM,
    candidate_gains,
    measured_gains,
    posterior,
)
from mgral_service.domain.value.lookup import LookupTable
from tests.domain.pools import pool_of, record


def test_the_posterior_weighs_prior_and_measurement_by_their_precisions() -> None:
    mean, sd = posterior(0.01, 0.01, 0.03, 0.02)
    assert mean == pytest.approx((0.01 / 1 + 0.03 / 4) / (1 + 1 / 4))
    assert sd == pytest.approx(0.01 * 0.02 / (0.01**2 + 0.02**2) ** 0.5)
    assert posterior(0.01, 0.01, 0.03, np.inf) == (0.01, 0.01)
    assert posterior(0.01, 0.01, 0.03, 0.0) == (0.03, 0.0)
    assert posterior(0.0, 0.0, 0.03, 0.02) == (0.0, 0.0)


def records_of(
    folds: int, gains: dict[str, float], noise: float, seed: int = 0, share: int = 20
) -> list[LookupRecord]:
    """Two uniform batches a fold and one of each candidate, in folds of images of their own; the
    noise of a batch is the mean of a noise of each of its images.
    """
    rng = np.random.default_rng(seed)
    records: list[LookupRecord] = []
    for fold in range(folds):
        level = 0.3 + 0.1 * rng.standard_normal()
        images = noise * share**0.5 * rng.standard_normal(4 * share)
        for name in (UNIFORM, UNIFORM, *gains):
            rows = rng.permutation(4 * share)[:share]
            batch = tuple(f"fold{fold}-{row:03d}" for row in rows)
            score = level + gains.get(name, 0.0) + images[rows].mean()
            records.append(record(len(records), batch, score, fold, name))
    return records


def test_gains_are_over_the_uniform_batches_of_the_same_fold() -> None:
    records = records_of(3, {"entropy": 0.02, "coreset": -0.01}, noise=0.0)
    gains = measured_gains(records)
    assert gains["entropy"][0] == pytest.approx(0.02)
    assert gains["coreset"][0] == pytest.approx(-0.01)
    assert gains["entropy"][2] == 3
    assert gains[UNIFORM] == (0.0, 0.0, 6)


def test_the_standard_error_is_that_of_repeated_tables() -> None:
    truth = {"entropy": 0.02, "coreset": -0.01, "agent": 0.0}
    tables = [measured_gains(records_of(6, truth, 0.012, seed)) for seed in range(300)]
    for name, gain in truth.items():
        errors = np.array([table[name][0] for table in tables]) - gain
        stated = np.sqrt(np.mean([table[name][1] ** 2 for table in tables]))
        assert stated == pytest.approx(errors.std(), rel=0.15)


def test_folds_that_measure_the_same_batch_again_count_once() -> None:
    records = records_of(4, {"entropy": 0.02}, 0.012)
    again = [
        record(10 + row, records[row % 4].batch, records[row].score, records[row].fold, name)
        for row, name in ((row, records[row].chosen_by) for row in range(len(records)))
    ]
    apart, repeated = measured_gains(records)["entropy"][1], measured_gains(again)["entropy"][1]
    assert np.isfinite(apart)
    assert repeated != pytest.approx(apart, rel=0.1)


def test_a_fold_without_a_uniform_batch_does_not_count() -> None:
    records = records_of(3, {"entropy": 0.02}, 0.0)
    alone = [record(99, ("x",), 0.9, 7, "entropy")]
    assert measured_gains([*records, *alone])["entropy"] == measured_gains(records)["entropy"]
    assert measured_gains(alone) == {}


def test_few_noisy_records_leave_the_prior_and_many_overrule_it() -> None:
    pools = [pool_of(fold=fold) for fold in range(60)]
    names = ["entropy_root", "coreset", UNIFORM]
    truth = {"entropy_root": -0.01, "coreset": 0.02}

    def chosen(folds: int, noise: float) -> str:
        records = records_of(folds, truth, noise)
        table = LookupTable(
            tuple(records),
            {},
            (),
            np.array([record.score for record in records]),
            np.array([record.fold for record in records]),
        )
        return candidate_gains(table, names)[0].name

    assert len(pools) == 60
    assert chosen(2, 0.05) == "entropy_root"
    assert chosen(40, 0.01) == "coreset"


def test_without_a_table_the_posterior_is_the_prior() -> None:
    first, *rest = candidate_gains(None, ["coreset", "entropy_root", "agent", UNIFORM])
    assert first.name == "entropy_root"
    assert (first.posterior, first.posterior_sd) == PRIOR["entropy_root"]
    assert first.measured is None
    assert [gain.name for gain in rest] == ["agent", UNIFORM, "coreset"]

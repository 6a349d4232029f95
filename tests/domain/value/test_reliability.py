from __future__ import annotations

import numpy as np
import pytest

from mgral_service.domain.value.reliability import rank_reliability

GROUPS = np.arange(40) % 4


def reliability(estimates: np.ndarray, measured: np.ndarray):  # type: ignore[no-untyped-def]
    return rank_reliability(estimates, measured, GROUPS[: len(measured)], np.random.default_rng(0))


def test_equal_ranks_are_informative_and_levels_of_groups_do_not_matter() -> None:
    values = np.random.default_rng(1).standard_normal(40)
    found = reliability(values + 5 * GROUPS, values)
    assert found.spearman == pytest.approx(1)
    assert found.informed
    assert found.records == 40


def test_the_interval_of_noise_reaches_zero_nearly_always() -> None:
    rng = np.random.default_rng(2)
    informed = [
        reliability(rng.standard_normal(40), rng.standard_normal(40)).informed for _ in range(60)
    ]
    assert sum(informed) <= 3


def test_constant_values_rank_nothing_and_two_records_are_too_few() -> None:
    found = reliability(np.zeros(40), np.arange(40.0))
    assert (found.spearman, found.low, found.high) == (0.0, -1.0, 1.0)
    assert reliability(np.arange(2.0), np.arange(2.0)) is None

"""Agreement and spreads of measurements whose make-up is known."""

import numpy as np
import pytest

from benchmarks.lib import ranking
from benchmarks.lib.ranking import NEVER, between, records_to_rank, spreads, within


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "DRAWS", 200)


def test_equal_and_opposite_orders() -> None:
    first = np.arange(8.0)[:, None]
    assert between(first, first**3).value == pytest.approx(1.0)
    assert between(first, -first).value == pytest.approx(-1.0)
    assert between(first, np.zeros((8, 1))).value == 0.0


def test_agreement_is_the_mean_over_the_pairs_of_columns() -> None:
    up = np.arange(6.0)
    measured = np.stack([up, up, -up], axis=1)
    assert within(measured).value == pytest.approx((1 - 1 - 1) / 3)
    assert between(up[:, None], measured).value == pytest.approx((1 + 1 - 1) / 3)


def test_the_interval_holds_the_value_and_narrows_with_more_batches() -> None:
    rng = np.random.default_rng(0)

    def width(count: int) -> float:
        shared = rng.standard_normal(count)
        measured = np.stack([shared + rng.standard_normal(count) for _ in range(2)], axis=1)
        agreement = within(measured, ranks=False)
        assert agreement.low <= agreement.value <= agreement.high
        return agreement.high - agreement.low

    assert width(400) < width(25)


def test_spreads_find_the_noise_and_the_batches_and_leave_a_seeds_own_effect_out() -> None:
    rng = np.random.default_rng(1)
    batches, seeds = 400, 4
    measured = (
        0.3 * rng.standard_normal((batches, 1))
        + 5.0 * rng.standard_normal((1, seeds))
        + 0.1 * rng.standard_normal((batches, seeds))
    )
    noise, spread = spreads(measured)
    assert noise == pytest.approx(0.1, rel=0.1)
    assert spread == pytest.approx(0.3, rel=0.1)


def test_more_noise_wants_more_records() -> None:
    assert records_to_rank(0.0, 0.02) == 1.0
    assert records_to_rank(0.02, 0.02) == pytest.approx(np.tan(0.4 * np.pi) ** 2)
    assert records_to_rank(0.02, 0.0) == NEVER
    rng = np.random.default_rng(2)
    apart = 0.02 * rng.standard_normal(20_000) * 2**0.5
    means = apart + 0.02 * 2**0.5 / 9**0.5 * rng.standard_normal(20_000)
    right = float(np.mean(np.sign(apart) == np.sign(means)))
    assert right == pytest.approx(0.5 + np.arctan(3.0) / np.pi, abs=0.01)

from dataclasses import replace

import numpy as np
import pytest

from mgral_service.domain.evidence import Noise
from mgral_service.domain.noise import seed_noise
from tests.domain.pools import SEEDS, measured_again
from tests.domain.test_frame import hindsight


def test_seeds_are_told_from_batches_whatever_a_seed_does_to_a_rotation() -> None:
    table = hindsight(2000, axes=3)
    found = seed_noise(measured_again(table, 1000))
    assert found is not None
    assert found.pairs == 1000
    assert found.seeds == pytest.approx(SEEDS, rel=0.1)
    worths = table.deviations().std()
    assert found.batches == pytest.approx(np.hypot(worths, SEEDS), rel=0.05)
    assert found.ceiling == pytest.approx(worths / np.hypot(worths, SEEDS), rel=0.1)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    table = hindsight(40)
    found = [seed_noise(measured_again(table, 10, seed)) for seed in range(400)]
    held = [one.low <= SEEDS <= one.high for one in found if one is not None]
    assert len(held) == 400
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)


@pytest.mark.parametrize(("pairs", "known"), [(0, False), (2, False), (3, False), (4, True)])
def test_too_few_pairs_of_a_rotation_tell_nothing(pairs: int, known: bool) -> None:
    """A pair for each of two rotations tells nothing but what the seed does to all of them."""
    assert (seed_noise(measured_again(hindsight(40), pairs)) is not None) == known


def test_records_that_count_in_part_are_no_measure_of_those_that_count() -> None:
    table = measured_again(hindsight(80), 20)
    apart = np.where(np.arange(len(table)) % 2 == 0, table.weights, table.weights / 2)
    found = seed_noise(replace(table, weights=apart))
    assert found is not None
    assert found.pairs == 10
    spread = table.deviations()[:80:2].std()
    assert found.batches == pytest.approx(spread, rel=0.1)


def test_a_batch_whose_first_measurement_failed_is_no_pair() -> None:
    table = measured_again(hindsight(40), 10)
    left = np.arange(1, len(table))
    lost = replace(
        table,
        batches=table.batches[1:],
        designs=table.designs[1:],
        sources=table.sources[1:],
        scores=table.scores[left],
        rotations=table.rotations[left],
        weights=table.weights[left],
    )
    found = seed_noise(lost)
    assert found is not None
    assert found.pairs == 9


@pytest.mark.parametrize(
    ("seeds", "batches", "ceiling"),
    [(0.6, 1.0, 0.8), (0.0, 1.0, 1.0), (2.0, 1.0, 0.0), (0.0, 0.0, 0.0)],
)
def test_the_ceiling_is_the_root_of_what_is_no_noise(
    seeds: float, batches: float, ceiling: float
) -> None:
    assert Noise(9, seeds, 0.0, 9.0, batches).ceiling == pytest.approx(ceiling)

from typing import Literal

import numpy as np
import pytest

from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.hindsight import Shares, divisions, fidelity, shares, weigh
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.records import LookupRecord, Source
from mgral_service.domain.specs import TableSpec

LABELLED = tuple(f"img_{at:03d}" for at in range(60))


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def record(index: int, batch: int, score: float, source: Source, rotation: int) -> LookupRecord:
    ids = tuple(LABELLED[3 * batch : 3 * batch + 3])
    return LookupRecord("c", index, ids, (0.0,), score, 0, 1.0, "tilted", source, rotation)


def both_ways(truth: FloatArray, surrogate: FloatArray) -> LookupTable:
    """Batches of one rotation with labels, the same without, and two of the pool."""
    records = [record(at, at, score, "hindsight", 1) for at, score in enumerate(truth)]
    count = len(records)
    records += [
        record(count + at, at, score, "semi_supervised", 1) for at, score in enumerate(surrogate)
    ]
    records += [record(90 + at, 18 + at, 0.1 * at, "semi_supervised", 0) for at in range(2)]
    return LookupTable.of(records, LABELLED, ((), LABELLED[:3]))


def test_base_and_reservoir_share_the_labelled_images() -> None:
    for one in divisions(LABELLED, 40, 3, rng()):
        assert sorted((*one.base, *one.reservoir)) == list(LABELLED)
        assert one.size == len(one.reservoir) // 2


@pytest.mark.parametrize("rotations", [2, 3, 5])
def test_every_image_is_in_one_reservoir(rotations: int) -> None:
    found = divisions(LABELLED, 10, rotations, rng())
    assert sorted(name for one in found for name in one.reservoir) == list(LABELLED)


def test_divisions_follow_from_the_seed_and_not_from_the_order_of_ids() -> None:
    turned = LABELLED[30:] + LABELLED[:30]
    assert divisions(LABELLED, 10, 2, rng()) == divisions(turned, 10, 2, rng())


def test_eleven_labelled_images_are_too_few() -> None:
    assert divisions(LABELLED[:11], 4, 2, rng()) == ()
    assert len(divisions(LABELLED[:12], 4, 2, rng())) == 2


@pytest.mark.parametrize(
    ("source", "divided", "expected"),
    [
        ("semi_supervised", True, Shares(0, 0, 40)),
        ("hindsight", True, Shares(40, 0, 0)),
        ("both", True, Shares(20, 8, 12)),
        ("both", False, Shares(0, 0, 40)),
        ("hindsight", False, Shares(0, 0, 40)),
    ],
)
def test_the_records_are_shared_out(
    source: Literal["semi_supervised", "hindsight", "both"], divided: bool, expected: Shares
) -> None:
    spec = TableSpec(records=40, source=source)
    assert shares(spec, divided) == expected


def test_a_surrogate_that_ranks_alike_counts_as_far_as_is_certain() -> None:
    truth = np.linspace(0.2, 0.4, 16)
    table, found = weigh(both_ways(truth, truth + 0.3), rng())
    assert found is not None
    assert found.spearman == pytest.approx(1.0)
    assert found.records == 16
    assert 0 < found.low < 1
    assert table.weights.tolist() == [1.0] * 16 + [0.0] * 16 + [found.low] * 2


def test_a_surrogate_that_ranks_the_wrong_way_round_does_not_count() -> None:
    truth = np.linspace(0.2, 0.4, 16)
    table, found = weigh(both_ways(truth, -truth), rng())
    assert found is not None
    assert found.spearman == pytest.approx(-1.0)
    assert table.weights[-1] == 0


def test_without_hindsight_every_record_counts_in_full() -> None:
    records = [record(at, at, 0.1 * at, "semi_supervised", 0) for at in range(5)]
    table, found = weigh(LookupTable.of(records, LABELLED), rng())
    assert found is None
    assert table.weights.tolist() == [1.0] * 5


def test_hindsight_without_twins_has_no_fidelity_and_the_pool_does_not_count() -> None:
    records = [record(at, at, 0.1 * at, "hindsight", 1) for at in range(5)]
    records.append(record(9, 9, 0.5, "semi_supervised", 0))
    table = LookupTable.of(records, LABELLED, ((), LABELLED[:3]))
    assert fidelity(table, rng()) is None
    assert weigh(table, rng())[0].weights.tolist() == [1.0] * 5 + [0.0]

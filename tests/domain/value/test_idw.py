from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.value.idw import Cutoff, Distance, InverseDistance
from mgral_service.domain.value.lookup import LookupTable
from mgral_service.domain.value.transport import exact_distances
from tests.domain.pools import mean_of, measure, pool_of

POOL = pool_of(200, 40, 20)
WORTH = mean_of(0.3 + 0.05 * POOL.points[:, 0])
FAR: IntArray = np.argsort(POOL.points.sum(axis=1))[-20:]
DISTANCES: tuple[Distance, ...] = ("sliced", "exact", "one_hot")


def table_of(records: int = 30, seed: int = 0) -> LookupTable:
    return measure([POOL], records, WORTH, seed)


def fitted(
    table: LookupTable, distance: Distance = "sliced", cutoff: Cutoff = "query"
) -> InverseDistance:
    model = InverseDistance(distance, cutoff)
    model.fit(table)
    return model


def without(table: LookupTable, row: int) -> LookupTable:
    records = [record for position, record in enumerate(table.records) if position != row]
    return LookupTable.of(records, [POOL])


def read_by_hand(table: LookupTable, distances: FloatArray) -> float:
    """MGRAL, section 3.5: the inverse-distance mean of records nearer than mean - 1 sd."""
    near = distances < distances.mean() - distances.std()
    return float(np.average(table.scores[near], weights=1 / distances[near]) - table.scores.mean())


def test_it_tells_a_planted_value() -> None:
    fresh = table_of(40, seed=9)
    estimates = fitted(table_of(60)).estimate(POOL, fresh.batches)[0]
    assert spearmanr(estimates, fresh.scores)[0] > 0.3


def test_an_estimate_is_the_paper_s_formula() -> None:
    table, batch = table_of(12), np.arange(60, 80)
    expected = read_by_hand(table, exact_distances(POOL.points, [batch], table.batches)[0])
    assert fitted(table, "exact").estimate(POOL, [batch])[0] == pytest.approx([expected])


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("row", [0, 7])
def test_held_out_equals_fitting_again_without_the_record(distance: Distance, row: int) -> None:
    table = table_of(14)
    again = fitted(without(table, row), distance)
    expected = again.estimate(POOL, [table.batches[row]])[0][0]
    assert fitted(table, distance).held_out()[row] == pytest.approx(expected)


@pytest.mark.parametrize("cutoff", ["query", "table"])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_record_itself_is_read_back(distance: Distance, cutoff: Cutoff) -> None:
    table = table_of(12)
    gain, _ = fitted(table, distance, cutoff).estimate(POOL, [table.batches[4]])
    assert gain == pytest.approx([table.gains()[4]], abs=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_many_batches_are_read_as_each_alone(distance: Distance) -> None:
    model, batches = fitted(table_of(12), distance), table_of(5, seed=3).batches
    together = np.stack(model.estimate(POOL, batches))
    alone = [np.concatenate(model.estimate(POOL, [batch])) for batch in batches]
    assert together == pytest.approx(np.stack(alone, axis=1))


def test_a_batch_that_no_record_is_near_is_out_of_support() -> None:
    table = measure([POOL], 12, WORTH, design="uniform")
    model = fitted(table, cutoff="table")
    assert model.out_of_support(POOL, [FAR, table.batches[0]]).tolist() == [True, False]
    gain, sd = model.estimate(POOL, [FAR])
    assert gain == pytest.approx([0])
    assert sd == pytest.approx([table.scores.std()])


def test_one_hot_distance_is_the_root_of_what_is_not_shared() -> None:
    model = fitted(table_of(4), "one_hot")
    shared = POOL.candidates[:20]
    assert model._distances([shared]).shape == (1, 4)
    table = LookupTable.of(table_of(4).records, [POOL])
    members = [len(np.intersect1d(shared, batch)) for batch in table.batches]
    assert model._distances([shared])[0] == pytest.approx(np.sqrt(40 - 2 * np.array(members)))


def test_several_pools_and_single_records_are_refused() -> None:
    folds = [pool_of(fold=0), pool_of(fold=1)]
    table = measure(folds, 3, lambda pool, batch: 0.1)
    with pytest.raises(InvalidInput, match="several pools"):
        fitted(table)
    with pytest.raises(InvalidInput, match="two"):
        fitted(table_of(1))

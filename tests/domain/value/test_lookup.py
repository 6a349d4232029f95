from __future__ import annotations

import pytest

from mgral_service.domain.value.lookup import POOL, LookupTable
from tests.domain.pools import pool_of, record


def test_a_table_is_ordered_by_index_and_holds_positions_in_the_pool_of_each_record() -> None:
    pools = [pool_of(fold=0), pool_of(fold=1)]
    table = LookupTable.of(
        [record(2, ("img_0020", "img_0013"), 0.3, 1), record(1, ("img_0012",), 0.1, 0)], pools
    )
    assert [record.index for record in table.records] == [1, 2]
    assert [batch.tolist() for batch in table.batches] == [[12], [20, 13]]
    assert table.folds.tolist() == [0, 1]
    assert table.scores.tolist() == [0.1, 0.3]


def test_gains_are_scores_less_the_mean_of_their_fold() -> None:
    records = [record(number, ("img_0020",), 0.1 * number, number % 2) for number in range(4)]
    table = LookupTable.of(records, [pool_of(fold=0), pool_of(fold=1)])
    assert table.gains() == pytest.approx([-0.1, -0.1, 0.1, 0.1])


def test_records_of_the_pool_have_no_fold_and_other_images_are_refused() -> None:
    pool = pool_of()
    table = LookupTable.of([record(0, ("img_0030",), fold=None)], [pool])
    assert table.folds.tolist() == [POOL]
    with pytest.raises(KeyError):
        LookupTable.of([record(0, ("other",), fold=None)], [pool])

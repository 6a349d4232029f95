from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mgral_service.domain.lookup import (
    LookupTable,
    query_cutoff,
    record_weights,
    table_cutoff,
)
from mgral_service.domain.records import LookupRecord


def record(index: int, batch: tuple[str, ...]) -> LookupRecord:
    return LookupRecord("c1", index, batch, (0.5, 1.5), 0.1 * index, 0, 2.0, "uniform")


def test_a_table_is_ordered_by_index_and_holds_positions() -> None:
    table = LookupTable.of([record(2, ("b", "c")), record(1, ("a", "b"))], ["c", "b", "a"])
    assert len(table) == 2
    assert table.indices.tolist() == [1, 2]
    assert [batch.tolist() for batch in table.batches] == [[2, 1], [1, 0]]
    assert table.scores.tolist() == [0.1, 0.2]
    assert table.sketches.shape == (2, 2)


def test_a_record_of_an_unobserved_image_is_refused() -> None:
    with pytest.raises(KeyError):
        LookupTable.of([record(0, ("z",))], ["a"])


def test_a_record_three_times_nearer_weighs_three_times_more() -> None:
    weights = record_weights(np.array([1.0, 3.0]), cutoff=5.0)
    assert weights is not None
    assert weights @ [0.8, 0.4] == pytest.approx(0.7)


def test_no_record_under_the_cutoff_gives_no_weights() -> None:
    assert record_weights(np.array([1.0, 3.0]), cutoff=1.0) is None


def test_a_touching_record_decides_alone() -> None:
    weights = record_weights(np.array([0.0, 1.0]), cutoff=2.0)
    assert weights is not None
    assert weights @ [0.8, 0.4] == pytest.approx(0.8)


def test_weights_sum_to_one_and_are_zero_beyond_the_cutoff() -> None:
    weights = record_weights(np.array([1.0, 3.0, 9.0]), cutoff=4.0)
    assert weights is not None
    assert weights.tolist() == [0.75, 0.25, 0.0]


def test_cutoffs_are_the_mean_less_one_spread() -> None:
    assert query_cutoff(np.array([1.0, 3.0])) == pytest.approx(1.0)
    pairs = np.array([[0.0, 1.0, 3.0], [1.0, 0.0, 2.0], [3.0, 2.0, 0.0]])
    assert table_cutoff(pairs) == pytest.approx(2.0 - np.sqrt(2 / 3))
    assert table_cutoff(np.zeros((1, 1))) == 0


def test_hindsight_records_of_a_rotation_are_left_out_together() -> None:
    records = [record(at, ("a",)) for at in range(6)]
    table = replace(LookupTable.of(records, ["a"]), rotations=np.array([0, 1, 2, 0, 1, 1]))
    assert [block.tolist() for block in table.blocks] == [[0], [3], [1, 4, 5], [2]]


def test_without_another_rotation_that_counts_each_record_is_left_out_by_itself() -> None:
    records = [record(at, ("a",)) for at in range(3)]
    table = replace(LookupTable.of(records, ["a"]), rotations=np.array([1, 2, 1]))
    table = replace(table, weights=np.array([1.0, 0.0, 1.0]))
    assert [block.tolist() for block in table.blocks] == [[0], [1], [2]]

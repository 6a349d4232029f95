"""The exam of LookupStore."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import pytest

from mgral_service.domain.errors import InvalidInput, NotFound, StaleLease
from mgral_service.domain.ports import Stores
from tests.fakes import cycle_record, lookup_record


@pytest.fixture
def lease(stores: Stores) -> int:
    stores.cycles.create(cycle_record(), None, "")
    return stores.cycles.acquire("cyc_1", "me", 600.0)


def test_records_come_back_by_index(stores: Stores, lease: int) -> None:
    for index in (10, 2, 0):
        assert stores.table.put(lookup_record(index), lease)
    assert stores.table.records("cyc_1") == tuple(lookup_record(index) for index in (0, 2, 10))
    assert stores.table.count("cyc_1") == 3


def test_the_first_record_of_an_index_stays(stores: Stores, lease: int) -> None:
    assert stores.table.put(lookup_record(0, score=0.1), lease)
    assert not stores.table.put(lookup_record(0, score=0.9), lease)
    assert stores.table.records("cyc_1") == (lookup_record(0, score=0.1),)


def test_tables_of_cycles_are_apart(stores: Stores, lease: int) -> None:
    stores.table.put(lookup_record(0), lease)
    assert stores.table.records("cyc_2") == ()
    assert stores.table.count("cyc_2") == 0


def test_a_driver_that_lost_the_cycle_adds_nothing(stores: Stores) -> None:
    stores.cycles.create(cycle_record(), None, "")
    old = stores.cycles.acquire("cyc_1", "old", 0.02)
    time.sleep(0.05)
    new = stores.cycles.acquire("cyc_1", "new", 600.0)
    with pytest.raises(StaleLease):
        stores.table.put(lookup_record(0), old)
    with pytest.raises(StaleLease):
        stores.table.put(lookup_record(0), new + 1)
    assert stores.table.count("cyc_1") == 0


def test_a_record_of_no_cycle_is_refused(stores: Stores) -> None:
    with pytest.raises(NotFound):
        stores.table.put(lookup_record(0), 1)


def test_a_score_that_is_no_number_is_refused(stores: Stores, lease: int) -> None:
    with pytest.raises(InvalidInput, match="score"):
        stores.table.put(replace(lookup_record(0), score=math.nan), lease)
    assert stores.table.count("cyc_1") == 0

"""The exam of EventLog."""

from __future__ import annotations

import math

import pytest

from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import Stores
from mgral_service.domain.records import Status


def test_events_are_read_after_an_id(stores: Stores) -> None:
    ids = [stores.events.append("cyc_1", "progress", {"done": number}) for number in range(5)]
    assert [event.id for event in stores.events.read("cyc_1", "0", 100)] == ids
    rest = stores.events.read("cyc_1", ids[1], 2)
    assert [(event.id, event.data["done"]) for event in rest] == [(ids[2], 2), (ids[3], 3)]
    assert stores.events.read("cyc_1", ids[-1], 10) == ()
    assert stores.events.read("cyc_2", "0", 10) == ()


def test_data_comes_back_as_json(stores: Stores) -> None:
    stores.events.append(
        "cyc_1", "k", {"s": Status.FITTING, "n": math.nan, "l": (1, 2.5), "ü": "ß"}
    )
    event = stores.events.read("cyc_1", "0", 1)[0]
    assert event.kind == "k"
    assert event.data == {"s": "FITTING", "n": None, "l": [1, 2.5], "ü": "ß"}


def test_the_last_of_a_kind(stores: Stores) -> None:
    assert stores.events.last("cyc_1", "progress") is None
    stores.events.append("cyc_1", "progress", {"done": 1})
    stores.events.append("cyc_1", "progress", {"done": 2})
    stores.events.append("cyc_1", "other", {})
    assert stores.events.last("cyc_1", "progress", "EVALUATING") is None
    event = stores.events.last("cyc_1", "progress")
    assert event is not None
    assert event.data == {"done": 2}


@pytest.mark.parametrize("after", ["", "x", "1-x", "-1", "1-2-3", "9" * 40, "\uff11"])
def test_a_made_up_id_is_refused(stores: Stores, after: str) -> None:
    with pytest.raises(InvalidInput):
        stores.events.read("cyc_1", after, 10)

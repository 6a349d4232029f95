"""The exam of CycleStore."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from mgral_service.domain.errors import (
    IdempotencyMismatch,
    IllegalTransition,
    LeaseHeld,
    NotFound,
    StaleLease,
)
from mgral_service.domain.ports import Stores
from mgral_service.domain.records import Problem, Status
from mgral_service.store.embedded import EmbeddedValkey
from mgral_service.store.redis import redis_stores
from tests.fakes import cycle_record

FOREVER_S = 600.0


def test_a_cycle_comes_back_as_it_went_in(stores: Stores) -> None:
    made = stores.cycles.create(cycle_record(), None, "")
    assert made == replace(cycle_record(), number=1)
    assert stores.cycles.get("cyc_1") == made


def test_a_cycle_of_an_experiment_has_no_job(stores: Stores) -> None:
    record = replace(cycle_record(), experiment=True)
    assert stores.cycles.create(record, None, "") == replace(record, number=1)
    stores.cycles.put(replace(record, status=Status.FITTING), None)
    assert stores.cycles.get("cyc_1").experiment
    assert stores.cycles.get("cyc_1").job is None


def test_cycles_are_numbered_by_dataset(stores: Stores) -> None:
    names = [("cyc_1", "digits"), ("cyc_2", "cars"), ("cyc_3", "digits")]
    made = [stores.cycles.create(cycle_record(*name), None, "") for name in names]
    assert [record.number for record in made] == [1, 1, 2]


def test_a_key_makes_one_cycle(stores: Stores) -> None:
    first = stores.cycles.create(cycle_record("cyc_1"), "key", "same")
    again = stores.cycles.create(cycle_record("cyc_2"), "key", "same")
    assert again == first
    with pytest.raises(NotFound):
        stores.cycles.get("cyc_2")
    assert stores.cycles.create(cycle_record("cyc_3"), "other key", "same").number == 2


def test_a_key_with_another_body_is_refused(stores: Stores) -> None:
    stores.cycles.create(cycle_record("cyc_1"), "key", "one")
    with pytest.raises(IdempotencyMismatch):
        stores.cycles.create(cycle_record("cyc_2"), "key", "two")


def test_what_a_key_made_is_known(stores: Stores) -> None:
    assert stores.cycles.claimed("key", "one") is None
    made = stores.cycles.create(cycle_record("cyc_1"), "key", "one")
    assert stores.cycles.claimed("key", "one") == made
    with pytest.raises(IdempotencyMismatch):
        stores.cycles.claimed("key", "two")


def test_creating_an_id_twice_keeps_the_first(stores: Stores) -> None:
    stores.cycles.create(cycle_record(), None, "")
    again = stores.cycles.create(replace(cycle_record(), created=2.0), None, "")
    assert (again.created, again.number) == (1000.0, 1)


def test_an_unknown_cycle_is_not_found(stores: Stores) -> None:
    cycles = stores.cycles
    calls: list[Callable[[], object]] = [
        lambda: cycles.get("no"),
        lambda: cycles.put(cycle_record("no"), None),
        lambda: cycles.acquire("no", "me", 1.0),
        lambda: cycles.holder("no"),
        lambda: cycles.put_attachment("no", "report", "{}", None),
        lambda: cycles.attachment("no", "report"),
        lambda: cycles.page("no", 3),
    ]
    for call in calls:
        with pytest.raises(NotFound):
            call()


def test_status_moves_forward_only(stores: Stores) -> None:
    record = stores.cycles.create(cycle_record(), None, "")
    stores.cycles.put(replace(record, status=Status.PREDICTING), None)
    stores.cycles.put(replace(record, status=Status.PREDICTING, updated=5.0), None)
    with pytest.raises(IllegalTransition):
        stores.cycles.put(replace(record, status=Status.FITTING), None)
    stores.cycles.put(replace(record, status=Status.SELECTED), None)
    assert stores.cycles.get("cyc_1").status is Status.SELECTED


@pytest.mark.parametrize("end", [Status.SUCCEEDED, Status.FAILED, Status.CANCELLED])
def test_an_end_is_an_end(stores: Stores, end: Status) -> None:
    record = replace(stores.cycles.create(cycle_record(), None, ""), status=end)
    record = replace(record, problem=Problem("Unavailable", "gone"))
    stores.cycles.put(record, None)
    stores.cycles.put(record, None)
    for status in set(Status) - {end}:
        with pytest.raises(IllegalTransition):
            stores.cycles.put(replace(record, status=status), None)
    assert stores.cycles.get("cyc_1") == record


def test_attempts_never_fall_and_keep_their_job(stores: Stores) -> None:
    """A driver writes the record it read when it started, before the gateway noted its job."""
    record = stores.cycles.create(cycle_record(), None, "")
    stores.cycles.put(replace(record, attempts=1, job="job-1"), None)
    stores.cycles.put(replace(record, status=Status.FITTING), None)
    stored = stores.cycles.get("cyc_1")
    assert (stored.status, stored.attempts, stored.job) == (Status.FITTING, 1, "job-1")


def test_one_of_twenty_takes_the_lease(stores: Stores) -> None:
    stores.cycles.create(cycle_record(), None, "")
    won: list[int] = []
    lost: list[LeaseHeld] = []
    start = threading.Barrier(20)

    def take(owner: str) -> None:
        start.wait()
        try:
            won.append(stores.cycles.acquire("cyc_1", owner, FOREVER_S))
        except LeaseHeld as error:
            lost.append(error)

    threads = [threading.Thread(target=take, args=(f"driver {number}",)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 19)
    assert {error.owner for error in lost} == {stores.cycles.holder("cyc_1")}


def test_a_lease_taken_over_writes_no_more(stores: Stores) -> None:
    record = stores.cycles.create(cycle_record(), None, "")
    old = stores.cycles.acquire("cyc_1", "old", 0.02)
    stores.cycles.put(replace(record, status=Status.FITTING), old)
    time.sleep(0.05)
    new = stores.cycles.acquire("cyc_1", "new", FOREVER_S)
    assert new > old
    calls: list[Callable[[], None]] = [
        lambda: stores.cycles.put(replace(record, status=Status.PREDICTING), old),
        lambda: stores.cycles.renew("cyc_1", old, 1.0),
        lambda: stores.cycles.put_attachment("cyc_1", "report", "{}", old),
        lambda: stores.cycles.release("cyc_1", old),
    ]
    for call in calls:
        with pytest.raises(StaleLease):
            call()
    stores.cycles.put(replace(record, status=Status.PREDICTING), new)
    assert stores.cycles.holder("cyc_1") == "new"


def test_an_expired_lease_that_nobody_took_may_go_on(stores: Stores) -> None:
    record = stores.cycles.create(cycle_record(), None, "")
    lease = stores.cycles.acquire("cyc_1", "me", 0.02)
    time.sleep(0.05)
    assert stores.cycles.holder("cyc_1") is None
    stores.cycles.put(replace(record, status=Status.FITTING), lease)
    stores.cycles.renew("cyc_1", lease, FOREVER_S)
    assert stores.cycles.holder("cyc_1") == "me"


def test_a_released_lease_is_free_and_writes_no_more(stores: Stores) -> None:
    record = stores.cycles.create(cycle_record(), None, "")
    lease = stores.cycles.acquire("cyc_1", "me", FOREVER_S)
    stores.cycles.release("cyc_1", lease)
    assert stores.cycles.holder("cyc_1") is None
    with pytest.raises(StaleLease):
        stores.cycles.put(record, lease)
    assert stores.cycles.acquire("cyc_1", "you", FOREVER_S) > lease


def test_pages_are_newest_first_and_whole(stores: Stores) -> None:
    names = [f"cyc_{number}" for number in range(7)]
    for name in names:
        stores.cycles.create(cycle_record(name), None, "")
    ids: list[str] = []
    after: str | None = None
    while page := stores.cycles.page(after, 3):
        ids += [record.id for record in page]
        after = ids[-1]
        if len(ids) == 3:  # a newcomer moves nothing
            stores.cycles.create(cycle_record("cyc_new"), None, "")
    assert ids == names[::-1]


def test_attachments_have_a_name(stores: Stores) -> None:
    stores.cycles.create(cycle_record(), None, "")
    lease = stores.cycles.acquire("cyc_1", "me", FOREVER_S)
    stores.cycles.put_attachment("cyc_1", "report", '{"a": "é"}', lease)
    stores.cycles.put_attachment("cyc_1", "selection", "{}", None)
    assert stores.cycles.attachment("cyc_1", "report") == '{"a": "é"}'
    assert stores.cycles.attachment("cyc_1", "other") is None


def test_redis_stores_travel_by_pickle(valkey: EmbeddedValkey, prefix: str) -> None:
    stores = redis_stores(valkey.url, prefix)
    stores.cycles.create(cycle_record(), None, "")
    for part in (stores.cycles, stores.table, stores.events, stores.datasets):
        assert b"redis.client" not in pickle.dumps(part)
    travelled = pickle.loads(pickle.dumps(stores))
    assert travelled.cycles.get("cyc_1") == stores.cycles.get("cyc_1")

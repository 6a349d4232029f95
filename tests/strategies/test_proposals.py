"""Batches the agent proposes, in rounds, over a double of the online table."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.ports import Site
from mgral_service.domain.records import DesignedBatch, Source
from mgral_service.strategies.proposals import Proposals
from tests.domain.pools import divide, mean_of, measure, observe

SEEN = observe(60)
TABLE = measure(SEEN, divide(SEEN, 20), 8, 5, mean_of(np.arange(60) / 100))
POOL = Site(SEEN.ids[20:], 5, "semi_supervised", 0)
RESERVOIRS = tuple(Site(SEEN.ids[10 * at : 10 * at + 10], 4, "hindsight", at + 1) for at in (0, 1))
POINTS = np.arange(60.0)[:, None]


class Online:
    def __init__(self, sites: tuple[Site, ...], left: int) -> None:
        self.sites, self.left = sites, left
        self.story: list[str] = []
        self.batches: list[DesignedBatch] = []

    def submit(self, batches: Sequence[DesignedBatch]) -> None:
        self.story.append(f"submit {len(batches)}")
        self.batches += batches
        self.left -= len(batches)

    def join(self) -> LookupTable:
        self.story.append("join")
        return TABLE


def place(names: Sequence[str]) -> IntArray:
    return np.array([SEEN.ids.index(name) for name in names])


def run(
    online: Online, iterations: int = 40, table: LookupTable = TABLE, far: float = np.inf
) -> list[int]:
    """Iterations after which the reward had changed. far: mean position of a batch from which on no
    record is near.
    """
    refitted: list[LookupTable] = []

    def promise(batches: Sequence[IntArray], rotation: int) -> FloatArray:
        """Of the second reservoir what the policy likes least."""
        sign = -1.0 if rotation == 2 else 1.0
        means = np.array([float(batch.mean()) for batch in batches])
        return np.where(means > far, np.inf, sign * means)

    made = Proposals(
        online,
        POINTS,
        place,
        lambda: table,
        promise,
        refitted.append,
        0.3,
        iterations,
        np.random.default_rng(0),
    )
    changed = [t for t in range(1, iterations + 1) if made(t, lambda points: points[:, 0] / 30)]
    assert len(refitted) == online.story.count("join")
    return changed


def test_what_is_proposed_in_a_round_is_joined_at_the_next_one() -> None:
    online = Online((POOL,), 5)
    assert run(online) == [20, 30]
    assert online.story == ["submit 3", "join", "submit 2", "join"]


def test_batches_are_of_their_site_distinct_and_of_its_size() -> None:
    online = Online((POOL,), 6)
    run(online)
    for one in online.batches:
        assert len(set(one.batch)) == 5
        assert set(one.batch) <= set(POOL.images)
        assert (one.design, one.source, one.rotation) == ("agent", "semi_supervised", 0)
    assert len({frozenset(one.batch) for one in online.batches[:3]}) == 3


def test_the_most_promising_draws_of_the_pool_come_first() -> None:
    online = Online((POOL,), 6)
    run(online)
    values = [place(one.batch).mean() for one in online.batches[:3]]
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(57.0)  # the five highest scores, which promise most here


def test_reservoirs_take_turns_and_begin_with_what_promises_most() -> None:
    online = Online(RESERVOIRS, 4)
    run(online)
    assert [one.rotation for one in online.batches] == [1, 2, 1, 2]
    assert set(online.batches[0].batch) == set(RESERVOIRS[0].images[-4:])
    means = [place(one.batch).mean() for one in online.batches if one.rotation == 2]
    assert means[0] < place(RESERVOIRS[1].images[-4:]).mean()
    assert means == sorted(means)


def test_batches_to_which_no_record_is_near_come_first_and_are_told_apart() -> None:
    online = Online((POOL,), 20)
    run(online, far=55.5)
    first = [one for one in online.batches[:10] if one.design == "fallback"]
    assert 0 < len(first) < 10
    assert first == online.batches[: len(first)]
    means = [place(one.batch).mean() for one in online.batches[:10]]
    assert all(mean > 55.5 for mean in means[: len(first)])
    assert all(mean <= 55.5 for mean in means[len(first) :])


def test_what_has_a_record_is_not_proposed_again() -> None:
    first = Online(RESERVOIRS, 4)
    run(first)
    greedy = place(first.batches[0].batch)[::-1]
    twin = replace(
        TABLE,
        batches=(greedy, *TABLE.batches[1:]),
        rotations=np.ones(len(TABLE), dtype=np.int64),
    )
    cases: list[tuple[Source, bool]] = [("semi_supervised", True), ("hindsight", False)]
    for source, again in cases:
        online = Online(RESERVOIRS, 4)
        run(online, table=replace(twin, sources=(source,) * len(TABLE)))
        proposed = [frozenset(place(one.batch)) for one in online.batches if one.rotation == 1]
        assert (frozenset(greedy) in proposed) == again


def test_without_room_nothing_is_proposed() -> None:
    online = Online((POOL,), 0)
    assert run(online) == []
    assert online.story == []

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.hindsight import (
    Division,
    Shares,
    divisions,
    fidelity,
    shares,
    tryouts,
    weigh,
)
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.records import AGAIN, LookupRecord, Source
from mgral_service.domain.specs import CycleSpec, TableSpec

LABELLED = tuple(f"img_{at:03d}" for at in range(60))
SCORING = tuple(f"scoring_{at:03d}" for at in range(60))


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


def divided(
    labelled: tuple[str, ...] = LABELLED,
    scoring: tuple[str, ...] = SCORING[:10],
    budget: int = 10,
    table: TableSpec = TableSpec(),  # noqa: B008 frozen
) -> tuple[Division, ...]:
    split = PoolSplit(dict.fromkeys(labelled, 0), (), scoring)
    return divisions(CycleSpec("d", budget, table=table), split, rng())


def test_base_and_reservoir_share_the_labelled_images() -> None:
    for one in divided(budget=40, table=TableSpec(rotations=3)):
        assert sorted((*one.base, *one.reservoir)) == list(LABELLED)
        assert one.size == len(one.reservoir) // 2
        assert one.scoring == SCORING[:10]


@pytest.mark.parametrize("rotations", [2, 3, 5])
@pytest.mark.parametrize("scoring", [10, 60])
def test_every_image_is_in_one_reservoir(rotations: int, scoring: int) -> None:
    found = divided(scoring=SCORING[:scoring], table=TableSpec(rotations=rotations))
    assert len(found) == rotations
    every = LABELLED if scoring == 10 else SCORING[:scoring]
    assert sorted(name for one in found for name in one.reservoir) == list(every)


def test_enough_scoring_images_stand_in_for_the_pool_beside_all_labelled_ones() -> None:
    for one in divided(scoring=SCORING[:49], budget=40):
        assert one.base == LABELLED
        assert sorted((*one.reservoir, *one.scoring)) == list(SCORING[:49])
        assert one.size == len(one.reservoir) // 2


@pytest.mark.parametrize(
    ("count", "table", "expected"),
    [
        (48, TableSpec(), True),
        (47, TableSpec(), False),
        (60, TableSpec(reservoir="labelled"), False),
        (60, TableSpec(source="semi_supervised"), False),
    ],
)
def test_which_images_are_divided(count: int, table: TableSpec, expected: bool) -> None:
    assert table.draws_from_scoring(count) == expected
    for one in divided(scoring=SCORING[:count], table=table):
        assert set(one.reservoir) <= {*(SCORING if expected else LABELLED)}


def test_without_hindsight_nothing_is_divided() -> None:
    assert divided(scoring=SCORING, table=TableSpec(source="semi_supervised")) == ()


@pytest.mark.parametrize("scoring", [SCORING[:10], SCORING])
def test_divisions_follow_from_the_seed_and_not_from_the_order_of_ids(
    scoring: tuple[str, ...],
) -> None:
    def parts(found: tuple[Division, ...]) -> list[tuple[str, ...]]:
        return [one.reservoir for one in found]

    turned = LABELLED[30:] + LABELLED[:30]
    assert parts(divided(turned, scoring[::-1])) == parts(divided(LABELLED, scoring))


def test_eleven_labelled_images_are_too_few() -> None:
    assert divided(LABELLED[:11], budget=4) == ()
    assert len(divided(LABELLED[:12], budget=4)) == 2


def test_tryouts_are_halves_drawn_anew_and_then_the_others() -> None:
    spec = CycleSpec("d", 10)
    split = PoolSplit(dict.fromkeys(LABELLED, 0), (), SCORING)
    first, second, third = tryouts(spec, split, 3, rng())
    assert sorted((*first.reservoir, *second.reservoir)) == list(SCORING)
    assert (first.reservoir, first.scoring) == (second.scoring, second.reservoir)
    assert first.base == third.base == LABELLED
    assert third.reservoir not in (first.reservoir, second.reservoir)
    assert third.size == 10


def test_labelled_images_are_no_place_for_tryouts() -> None:
    split = PoolSplit(dict.fromkeys(LABELLED, 0), (), SCORING[:47])
    assert tryouts(CycleSpec("d", 10), split, 3, rng()) == ()


def test_tryouts_do_not_count_in_the_value_model() -> None:
    records = [record(at, at, 0.1 * at, "hindsight", 1 + at % 4) for at in range(8)]
    table = LookupTable.of(records, LABELLED, [LABELLED] * 5)
    assert weigh(table, 2, rng())[0].weights.tolist() == [1.0, 1.0, 0.0, 0.0] * 2


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
    table, found = weigh(both_ways(truth, truth + 0.3), 2, rng())
    assert found is not None
    assert found.spearman == pytest.approx(1.0)
    assert found.records == 16
    assert 0 < found.low < 1
    assert table.weights.tolist() == [1.0] * 16 + [0.0] * 16 + [found.low] * 2


def test_a_surrogate_that_ranks_the_wrong_way_round_does_not_count() -> None:
    truth = np.linspace(0.2, 0.4, 16)
    table, found = weigh(both_ways(truth, -truth), 2, rng())
    assert found is not None
    assert found.spearman == pytest.approx(-1.0)
    assert table.weights[-1] == 0


def test_without_hindsight_every_record_counts_in_full() -> None:
    records = [record(at, at, 0.1 * at, "semi_supervised", 0) for at in range(5)]
    table, found = weigh(LookupTable.of(records, LABELLED), 2, rng())
    assert found is None
    assert table.weights.tolist() == [1.0] * 5


def test_a_batch_that_was_measured_twice_counts_once() -> None:
    records = [record(at, at % 3, 0.1 * at, "semi_supervised", 0) for at in range(6)]
    records[4] = replace(records[4], batch=records[4].batch[::-1])  # the same images
    table, _ = weigh(LookupTable.of(records, LABELLED), 2, rng())
    assert table.weights.tolist() == [1.0] * 3 + [0.0] * 3
    same = [record(at, 0, 0.1 * at, "semi_supervised", 0) for at in range(4)]
    assert weigh(LookupTable.of(same, LABELLED), 2, rng())[0].weights.tolist() == [1.0] * 4


def test_hindsight_without_twins_has_no_fidelity_and_the_pool_does_not_count() -> None:
    records = [record(at, at, 0.1 * at, "hindsight", 1) for at in range(5)]
    records.append(record(9, 9, 0.5, "semi_supervised", 0))
    table = LookupTable.of(records, LABELLED, ((), LABELLED[:3]))
    assert fidelity(table, rng()) is None
    assert weigh(table, 2, rng())[0].weights.tolist() == [1.0] * 5 + [0.0]


def test_what_was_measured_again_teaches_nothing_and_shifts_no_level() -> None:
    """Of two rotations the second seed is good to one and bad to the other."""
    worth = np.random.default_rng(1).normal(size=24)
    records = [record(at, at % 12, w, "hindsight", 1 + at // 12) for at, w in enumerate(worth)]
    records += [
        record(24 + at, at % 12, w, "semi_supervised", 1 + at // 12) for at, w in enumerate(worth)
    ]
    again = [
        replace(record(48 + at, at, worth[at] + shift, "hindsight", rotation), design=AGAIN)
        for rotation, shift in ((1, 9.0), (2, -9.0))
        for at in range(4 * rotation - 4, 4 * rotation)
    ]
    bases = ((), LABELLED[:3], LABELLED[3:6])
    alone, beside = (
        weigh(LookupTable.of(some, LABELLED, bases), 2, rng())
        for some in (records, [*records, *again])
    )
    assert alone[1] == beside[1]
    assert beside[0].weights[48:].tolist() == [0.0] * 8
    first_failed, _ = weigh(LookupTable.of([*records[1:], *again], LABELLED, bases), 2, rng())
    assert first_failed.weights[47:].tolist() == [0.0] * 8

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from scipy.stats import spearmanr

from mgral_service.domain.arrays import IntArray
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.idw import Cutoff, InverseDistance, OneHot
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.ports import ValueModel
from mgral_service.domain.transport import exact_distances, fixed_directions, standardise
from tests.domain.pools import divide, mean_of, measure, observe

SEEN = observe(200)
SPLIT = divide(SEEN, 40)
POINTS = standardise(SEEN.embeddings)
WORTH = mean_of(0.3 + 0.05 * POINTS[:, 0])
FAR = np.argsort(POINTS.sum(axis=1))[-20:]
CUTOFFS: tuple[Cutoff, ...] = ("query", "table", "predictive")


def table_of(records: int = 30, seed: int = 0) -> LookupTable:
    return measure(SEEN, SPLIT, records, 20, WORTH, seed)


def without(table: LookupTable, at: int) -> LookupTable:
    keep = np.arange(len(table)) != at
    return replace(
        table,
        batches=tuple(batch for batch, kept in zip(table.batches, keep, strict=True) if kept),
        sketches=table.sketches[keep],
        scores=table.scores[keep],
        sources=tuple(one for one, kept in zip(table.sources, keep, strict=True) if kept),
        rotations=table.rotations[keep],
        weights=table.weights[keep],
    )


def weighing(table: LookupTable, at: int, weight: float) -> LookupTable:
    weights = table.weights.copy()
    weights[at] = weight
    return replace(table, weights=weights)


def inverse(
    distance: Literal["sliced", "exact"] = "sliced", cutoff: Cutoff = "query"
) -> InverseDistance:
    return InverseDistance(POINTS, fixed_directions(POINTS.shape[1]), distance, cutoff)


def make(name: str, cutoff: Cutoff = "query") -> ValueModel:
    if name == "onehot":
        return OneHot(len(POINTS), cutoff)
    return inverse("exact" if name == "exact" else "sliced", cutoff)


NAMES = ("sliced", "exact", "onehot")


def test_inverse_distance_finds_some_of_a_planted_value() -> None:
    model = inverse()
    model.fit(table_of(60))
    fresh = table_of(40, seed=9)
    assert spearmanr(model.estimate(fresh.batches)[0], fresh.scores)[0] > 0.3


@pytest.mark.parametrize("cutoff", ["query", "predictive"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("at", [0, 7])
def test_left_out_equals_fitting_again_without_the_record(
    name: str, cutoff: Cutoff, at: int
) -> None:
    table = table_of(14)
    model, again = make(name, cutoff), make(name, cutoff)
    model.fit(table)
    again.fit(without(table, at))
    assert model.left_out()[at] == pytest.approx(again.estimate([table.batches[at]])[0][0])


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("name", NAMES)
def test_a_rotation_is_read_from_the_others_alone(name: str, cutoff: Cutoff) -> None:
    table = replace(table_of(16), rotations=1 + np.arange(16) % 2)
    rows = table.rotations == 1
    other = replace(table, scores=np.where(rows, table.scores[::-1], table.scores))
    gains = []
    for one in (table, other):
        model = make(name, cutoff)
        model.fit(one)
        gains.append((model.left_out() - one.scores + one.deviations())[rows])
    assert gains[0].mean() == pytest.approx(0)
    assert np.ptp(gains[0]) > 0
    assert gains[1] == pytest.approx(gains[0])


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("name", NAMES)
def test_a_record_itself_is_read_back(name: str, cutoff: Cutoff) -> None:
    model, table = make(name, cutoff), table_of(12)
    model.fit(table)
    mean, sd = model.estimate([table.batches[4]])
    assert mean == pytest.approx([table.scores[4]], abs=1e-6)
    if cutoff == "predictive":
        assert sd == pytest.approx([0], abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_many_batches_are_read_as_each_alone(name: str) -> None:
    model, batches = make(name, "predictive"), table_of(5, seed=3).batches
    model.fit(table_of(12))
    together = np.stack(model.estimate(batches))
    alone = np.stack([np.concatenate(model.estimate([batch])) for batch in batches], axis=1)
    assert together == pytest.approx(alone)


@pytest.mark.parametrize("cutoff", CUTOFFS)
@pytest.mark.parametrize("name", NAMES)
def test_a_record_of_no_weight_never_counts(name: str, cutoff: Cutoff) -> None:
    table, at = table_of(12), 4
    model, again = make(name, cutoff), make(name, cutoff)
    model.fit(weighing(table, at, 0.0))
    again.fit(without(table, at))
    batches: list[IntArray] = [table.batches[at], np.arange(60, 80), FAR]
    for ours, others in zip(model.estimate(batches), again.estimate(batches), strict=True):
        assert ours == pytest.approx(others)
    keep = np.arange(12) != at
    assert model.left_out()[keep] == pytest.approx(again.left_out())


def test_a_record_of_half_the_weight_counts_half() -> None:
    table = without(without(table_of(4), 0), 0)
    model = inverse("exact", "predictive")
    model.fit(weighing(table, 0, 0.5))
    batch: IntArray = np.arange(60, 80)
    first, second = exact_distances(POINTS, [batch], table.batches)[0]
    expected = np.average(table.scores, weights=[0.5 / first, 1 / second])
    assert model.estimate([batch])[0] == pytest.approx([expected])


def test_scores_of_another_level_count_by_their_deviations() -> None:
    table = table_of(12)
    rotations = np.repeat([0, 1], 6)
    ours, lifted = inverse(), inverse()
    ours.fit(replace(table, rotations=rotations))
    lifted.fit(replace(table, rotations=rotations, scores=table.scores + 0.2 * rotations))
    batches: list[IntArray] = [np.arange(60, 80), np.arange(90, 110)]
    assert ours.estimate(batches)[0] == pytest.approx(lifted.estimate(batches)[0])
    lift = lifted.left_out() - ours.left_out()
    assert lift == pytest.approx(0.2 * rotations)


def test_a_batch_that_no_record_is_near_counts_as_a_miss() -> None:
    model = inverse(cutoff="table")
    table = table_of(12)
    model.fit(table)
    mean, sd = model.estimate([FAR])
    assert model.misses == 1
    assert mean == pytest.approx([table.scores.mean()])
    assert sd == pytest.approx([table.scores.std()])
    model.left_out()
    assert model.far([FAR, table.batches[0]]).tolist() == [True, False]
    assert model.misses == 1


@pytest.mark.parametrize("name", NAMES)
def test_where_all_records_count_none_is_missed_and_far_batches_are_less_sure(name: str) -> None:
    model, table = make(name, "predictive"), table_of(30)
    model.fit(table)
    beside = table.batches[4].copy()
    beside[0] = np.setdiff1d(np.arange(40, 200), beside)[0]
    sd = model.estimate([beside, FAR])[1]
    assert sd[1] > 2 * sd[0] > 0
    assert model.misses == 0


def test_at_the_usual_distance_the_left_out_error_is_expected() -> None:
    rng = np.random.default_rng(0)
    table = table_of(60)
    noisy = replace(table, scores=0.3 + 0.02 * rng.standard_normal(60))
    model = inverse(cutoff="predictive")
    model.fit(noisy)
    sd = model.estimate(table_of(30, seed=9).batches)[1]
    error = np.sqrt(np.mean((model.left_out() - noisy.scores) ** 2))
    assert np.median(sd) == pytest.approx(error, rel=0.3)


def test_one_hot_distance_is_the_root_of_what_is_not_shared() -> None:
    table = replace(table_of(4), batches=tuple(np.arange(at, at + 20) for at in (0, 5, 100, 180)))
    model = OneHot(200, "predictive")
    model.fit(table)
    batch: IntArray = np.arange(0, 10)
    weights = 1 / np.sqrt([20 - 10, 30 - 10, 30, 30])
    expected = np.average(table.scores, weights=weights)
    assert model.estimate([batch])[0] == pytest.approx([expected])


def test_sketches_of_another_make_are_refused() -> None:
    with pytest.raises(InvalidInput, match="another version"):
        inverse().fit(replace(table_of(12), sketches=np.zeros((12, 3))))

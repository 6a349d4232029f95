from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from mgral_service.domain import design
from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.features import image_columns
from mgral_service.domain.records import DesignedBatch
from tests.domain.pools import observe

LABELLED, OPEN = np.arange(10), np.arange(10, 60)
CLASSICAL = {
    "entropy": np.arange(10, 15),
    "same": np.arange(14, 9, -1),
    "coreset": np.arange(20, 25),
}


def drawn(
    kind: str = "tilted", count: int = 20, budget: int = 5, seed: int = 0
) -> tuple[DesignedBatch, ...]:
    return design.draw(
        "tilted" if kind == "tilted" else "uniform",
        count,
        budget,
        observe(60),
        LABELLED,
        OPEN,
        CLASSICAL if budget == 5 else {},
        np.random.default_rng(seed),
    )


@pytest.mark.parametrize("kind", ["tilted", "uniform"])
@pytest.mark.parametrize("count", [4, 12, 31])
@pytest.mark.parametrize("budget", [1, 5, 50, 80])
def test_every_batch_is_of_distinct_open_images(kind: str, count: int, budget: int) -> None:
    batches = drawn(kind, count, budget)
    pool = {observe(60).ids[at] for at in OPEN}
    assert len(batches) == count
    for one in batches:
        assert len(one.batch) == len(set(one.batch)) == min(budget, 50)
        assert set(one.batch) <= pool


def test_shares_of_a_tilted_table() -> None:
    designs = [one.design for one in drawn(count=100)]
    assert designs.count("uniform") == 15
    assert designs.count("entropy") == designs.count("coreset") == 1
    assert designs.count("same") == 0
    assert designs.count("tilted") == 83


def test_a_table_of_twelve_keeps_all_designs() -> None:
    assert [one.design for one in drawn(count=12)] == [
        "entropy",
        "coreset",
        "uniform",
        "uniform",
        *["tilted"] * 8,
    ]


def test_the_same_rng_gives_the_same_batches_and_another_gives_others() -> None:
    assert drawn() == drawn()
    assert drawn() != drawn(seed=1)


def test_the_order_of_observation_and_pool_does_not_matter() -> None:
    observation = observe(60)
    turned = observation.subset(observation.ids[::-1])

    def draw(of: PoolObservation, labelled: slice, unlabelled: slice) -> tuple[DesignedBatch, ...]:
        at = np.arange(60)
        rng = np.random.default_rng(0)
        return design.draw("tilted", 12, 5, of, at[labelled], at[unlabelled], {}, rng)

    first = draw(observation, slice(0, 10), slice(10, 60))
    assert first == draw(turned, slice(50, 60), slice(0, 50))


def test_tilted_batches_move_the_mean_farther_than_uniform_ones() -> None:
    observation = observe(600)
    place = {name: at for at, name in enumerate(observation.ids)}

    def spread(batches: tuple[DesignedBatch, ...]) -> float:
        means = [
            observation.embeddings[[place[name] for name in one.batch]].mean(axis=0)
            for one in batches
        ]
        return float(np.var(means, axis=0).sum())

    def draw(kind: Literal["tilted", "uniform"]) -> tuple[DesignedBatch, ...]:
        rng = np.random.default_rng(0)
        return design.draw(kind, 60, 60, observation, np.arange(50), np.arange(50, 600), {}, rng)

    assert spread(draw("tilted")) > 2 * spread(draw("uniform"))


def test_no_two_tilts_are_along_the_same_direction() -> None:
    observation = observe(600)
    columns = image_columns(observation, np.arange(50))
    tilts = np.stack(design._tilts(columns, 9, np.random.default_rng(0)))
    assert tilts.std(axis=1) == pytest.approx(np.full(9, design.TILT))
    assert np.abs(np.corrcoef(tilts) - np.eye(9)).max() < 0.8


def test_few_tilts_are_along_the_first_components_and_other_columns() -> None:
    columns = image_columns(observe(600, dimension=20), np.arange(50))
    tilts = np.stack(design._tilts(columns, 5, np.random.default_rng(0)), axis=1)
    other = np.column_stack([np.log1p(columns.evidence), columns.uncertainty, columns.novelty])
    known = np.column_stack([np.ones(600), columns.components[:, :5], other])
    left = tilts - known @ np.linalg.lstsq(known, tilts, rcond=None)[0]
    assert np.abs(left).max() < 1e-9


def test_a_wrong_classical_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="entropy"):
        design.draw(
            "tilted",
            12,
            5,
            observe(60),
            LABELLED,
            OPEN,
            {"entropy": np.arange(5)},
            np.random.default_rng(0),
        )


def test_a_tryout_is_of_strategies_and_of_chance() -> None:
    rng = np.random.default_rng(0)
    found = design.tryout(5, 5, observe(60), OPEN, CLASSICAL, rng)
    assert [one.design for one in found] == ["entropy", "coreset", *["uniform"] * 3]
    pool = {observe(60).ids[at] for at in OPEN}
    assert all(len(set(one.batch)) == 5 and set(one.batch) <= pool for one in found)


def test_gumbel_top_draws_in_proportion_to_the_exponential_of_scores() -> None:
    rng = np.random.default_rng(0)
    scores = np.log([0.5, 0.3, 0.2])
    first = [design.gumbel_top(scores, 1, rng)[0] for _ in range(4000)]
    assert np.bincount(first) / 4000 == pytest.approx([0.5, 0.3, 0.2], abs=0.03)

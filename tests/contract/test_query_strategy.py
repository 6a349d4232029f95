"""The exam of `QueryStrategy`: every entry of STRATEGIES sits it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.evidence import Choice
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import Query
from mgral_service.domain.records import Progress
from mgral_service.domain.specs import AgentSpec, CycleSpec, TableSpec
from mgral_service.domain.transport import standardise
from mgral_service.strategies import CLASSICAL, STRATEGIES, rerank
from tests.domain.pools import CLASSES, divide, mean_of, measure, observe

NAMES = sorted(STRATEGIES)
AGENT = AgentSpec(iterations=6, draws=4, lane=16)


def query_of(
    name: str, observation: PoolObservation | None = None, labelled: int = 12, budget: int = 7
) -> Query:
    observation = observe(60) if observation is None else observation
    split = divide(observation, labelled)
    spec = CycleSpec("demo", budget, strategy=name, table=TableSpec(records=12), agent=AGENT)
    table = None
    if "table" in STRATEGIES[name]().needs:
        worth = mean_of(0.3 + 0.1 * standardise(observation.embeddings)[:, 0])
        table = measure(observation, split, 12, budget, worth)
    return Query(spec, split, observation, CLASSES, table)


def choose(query: Query, seed: int = 0) -> Choice:
    strategy = STRATEGIES[query.spec.strategy]()
    assert strategy.name == query.spec.strategy
    return strategy.select(query, np.random.default_rng(seed), lambda progress: None)


def check(choice: Choice, query: Query) -> None:
    """What every answer keeps to."""
    assert len(choice.ids) == min(query.spec.budget, len(query.split.unlabelled))
    assert len(set(choice.ids)) == len(choice.ids)
    assert set(choice.ids) <= set(query.split.unlabelled)
    assert choice.scores.shape == (len(choice.ids),)
    assert np.isfinite(choice.scores).all()
    assert len(choice.reasons) == len(choice.ids)
    assert all(reason.endswith(".") and "nan" not in reason for reason in choice.reasons)


@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_budget_of_distinct_unlabelled_images(name: str) -> None:
    query = query_of(name)
    check(choose(query), query)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_query_and_seed_give_the_same_answer(name: str) -> None:
    query = query_of(name)
    first, second = choose(query), choose(query)
    assert first.ids == second.ids
    assert first.scores.tolist() == second.scores.tolist()
    assert first.reasons == second.reasons
    assert first.evidence == second.evidence


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_images_does_not_matter(name: str) -> None:
    query = query_of(name)
    observation, split = query.observation, query.split
    turned = observation.subset(np.random.default_rng(5).permutation(observation.ids).tolist())
    place = {one: at for at, one in enumerate(turned.ids)}
    table = query.table
    if table is not None:
        moved = np.array([place[one] for one in observation.ids])
        table = replace(table, batches=tuple(moved[batch] for batch in table.batches))
    other = replace(
        query,
        observation=turned,
        split=PoolSplit(dict(reversed(list(split.labelled.items()))), split.unlabelled[::-1], ()),
        table=table,
    )
    assert choose(other).ids == choose(query).ids


@pytest.mark.parametrize("name", NAMES)
def test_inputs_stay_as_they_were(name: str) -> None:
    query = query_of(name)
    embeddings = query.observation.embeddings.copy()
    probs = query.observation.detections.probs.copy()
    scores = [] if query.table is None else query.table.scores.tolist()
    choose(query)
    assert np.array_equal(query.observation.embeddings, embeddings)
    assert np.array_equal(query.observation.detections.probs, probs)
    if query.table is not None:
        assert query.table.scores.tolist() == scores


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("open_images", [1, 3])
def test_a_pool_smaller_than_the_budget_is_taken_whole(name: str, open_images: int) -> None:
    query = query_of(name, observe(12 + open_images))
    check(choose(query), query)


@pytest.mark.parametrize("name", NAMES)
def test_a_pool_without_detections(name: str) -> None:
    query = query_of(name, observe(60, most=0))
    check(choose(query), query)


@pytest.mark.parametrize("name", NAMES)
def test_embeddings_that_are_not_finite(name: str) -> None:
    observation = observe(60)
    embeddings = observation.embeddings.copy()
    embeddings[20] = np.nan
    embeddings[:, 3] = np.nan
    embeddings[30, 1] = np.inf
    query = query_of(name, replace(observation, embeddings=embeddings))
    check(choose(query), query)


@pytest.mark.parametrize("name", NAMES)
def test_equal_images_are_told_apart_by_id_alone(name: str) -> None:
    observation = observe(60, most=0)
    same = np.ones_like(observation.embeddings)
    query = query_of(name, replace(observation, embeddings=same))
    check(choose(query), query)


@pytest.mark.parametrize("name", NAMES)
def test_a_pool_without_labelled_images(name: str) -> None:
    query = query_of(name, labelled=0)
    check(choose(query), query)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_that_was_not_observed_is_named(name: str) -> None:
    query = query_of(name)
    lost = query.split.unlabelled[-1]
    seen = query.observation.subset(one for one in query.observation.ids if one != lost)
    with pytest.raises(InvalidInput, match=lost):
        choose(replace(query, observation=seen))


@pytest.mark.parametrize("name", [one for one in NAMES if "table" in STRATEGIES[one]().needs])
def test_a_missing_table_is_refused_in_words(name: str) -> None:
    with pytest.raises(InvalidInput, match="table: mgral needs two trained proxies"):
        choose(replace(query_of(name), table=None))


@pytest.mark.parametrize("name", NAMES)
def test_another_budget_is_ranked_by_the_winner(name: str) -> None:
    query = query_of(name)
    choice = choose(query)
    for budget in (query.spec.budget, 3, 500):
        again = rerank(
            query.spec,
            query.split,
            query.observation,
            CLASSES,
            choice.agent,
            choice.strategy,
            budget,
            np.random.default_rng(0),
        )
        check(again, replace(query, spec=replace(query.spec, budget=budget)))
        assert again.strategy == choice.strategy
        if budget == query.spec.budget:
            assert again.ids == choice.ids


def test_classical_strategies_need_nothing_and_differ() -> None:
    assert all(not STRATEGIES[name]().needs for name in CLASSICAL)
    chosen = {name: frozenset(choose(query_of(name, observe(150))).ids) for name in CLASSICAL}
    assert len(set(chosen.values())) == len(chosen)


def test_a_report_that_raises_stops_the_agent() -> None:
    def cancelled(progress: Progress) -> None:
        raise InterruptedError

    query = query_of("mgral")
    with pytest.raises(InterruptedError):
        STRATEGIES["mgral"]().select(query, np.random.default_rng(0), cancelled)

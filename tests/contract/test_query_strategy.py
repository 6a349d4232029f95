"""The exam of `QueryStrategy`: every entry of STRATEGIES takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.ports import Query
from mgral_service.domain.records import LookupRecord, Progress, ProxySpec
from mgral_service.domain.report import Choice
from mgral_service.domain.specs import AgentAdvanced, AgentSpec, CycleSpec, TableSpec
from mgral_service.domain.value.lookup import LookupTable
from mgral_service.strategies import CLASSICAL, STRATEGIES, display_name, rerank
from tests.domain.pools import CLASSES, pool_of, predict

NAMES = sorted(STRATEGIES)
AGENT = AgentSpec(iterations=6, advanced=AgentAdvanced(draws=4, lane=16))
TABLE = TableSpec(records=24, folds=2)
FOLDS = tuple(pool_of(40, 14, 5, fold, seed=fold + 1) for fold in range(2))


def query_of(name: str, pool: CandidatePool | None = None) -> Query:
    pool = pool_of(60, 12, 7) if pool is None else pool
    spec = CycleSpec("demo", 7, strategy=name, table=TABLE, agent=AGENT)
    query = Query(spec, pool, FOLDS)
    plan = STRATEGIES[name]().plan(query)
    records = [measured(planned) for planned in plan]

    def measure(batches: Mapping[int, tuple[str, ...]]) -> LookupTable:
        own = [
            LookupRecord("c1", 100 + fold, "candidate", "agent", fold, batch, 0.4, 0, 1.0)
            for fold, batch in batches.items()
        ]
        return LookupTable.of([*records, *own], FOLDS)

    table = LookupTable.of(records, FOLDS) if records else None
    return replace(query, table=table, measure=measure)


def measured(spec: ProxySpec) -> LookupRecord:
    """mAP by the mean of the batch's first embedding."""
    assert spec.fold is not None
    pool = FOLDS[spec.fold]
    score = 0.3 + 0.1 * float(pool.points[pool.positions(spec.batch), 0].mean())
    return LookupRecord(
        "c1", spec.index, spec.role, spec.chosen_by, spec.fold, spec.batch, score, spec.seed, 1.0
    )


def choose(query: Query, seed: int = 0) -> Choice:
    strategy = STRATEGIES[query.spec.strategy]()
    assert strategy.name == query.spec.strategy
    return strategy.select(query, np.random.default_rng(seed), lambda progress: None)


def check(choice: Choice, pool: CandidatePool) -> None:
    """What every answer keeps to."""
    assert len(choice.ids) == pool.batch_size
    assert len(set(choice.ids)) == len(choice.ids)
    assert set(choice.ids) <= set(pool.names(pool.candidates))
    assert choice.scores.shape == (len(choice.ids),)
    assert np.isfinite(choice.scores).all()
    assert len(choice.reasons) == len(choice.ids)
    assert all(reason.endswith(".") and "nan" not in reason for reason in choice.reasons)


@pytest.mark.parametrize("name", NAMES)
def test_exactly_the_budget_of_distinct_unlabelled_images(name: str) -> None:
    query = query_of(name)
    check(choose(query), query.pool)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_query_and_seed_give_the_same_answer(name: str) -> None:
    first, second = choose(query_of(name)), choose(query_of(name))
    assert first.ids == second.ids
    assert first.scores.tolist() == second.scores.tolist()
    assert first.reasons == second.reasons
    assert first.table == second.table


@pytest.mark.parametrize("name", NAMES)
def test_the_order_in_which_images_come_does_not_matter(name: str) -> None:
    predictions = predict(60)
    turned = predictions.subset(np.random.default_rng(5).permutation(predictions.ids).tolist())
    ids = predictions.ids
    pool = CandidatePool(turned, ids[11::-1], ids[:11:-1], CLASSES, 7)
    assert choose(query_of(name, pool)).ids == choose(query_of(name)).ids


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("candidates", [1, 3])
def test_a_pool_smaller_than_the_budget_is_taken_whole(name: str, candidates: int) -> None:
    query = query_of(name, pool_of(12 + candidates, 12, 7))
    check(choose(query), query.pool)


def _broken_embeddings() -> CandidatePool:
    predictions = predict(60)
    embeddings = predictions.embeddings.copy()
    embeddings[20] = np.nan
    embeddings[:, 3] = np.nan
    embeddings[30, 1] = np.inf
    return pool_of(predictions=replace(predictions, embeddings=embeddings))


def _equal_images() -> CandidatePool:
    predictions = predict(60, most=0)
    return pool_of(
        predictions=replace(predictions, embeddings=np.ones_like(predictions.embeddings))
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "pool",
    [
        pool_of(predictions=predict(60, most=0)),
        _broken_embeddings(),
        _equal_images(),
        pool_of(labelled=0),
    ],
    ids=["no detections", "embeddings that are not finite", "equal images", "no labelled image"],
)
def test_unusual_pools(name: str, pool: CandidatePool) -> None:
    check(choose(query_of(name, pool)), pool)


@pytest.mark.parametrize("name", NAMES)
def test_another_budget_is_ranked_by_the_winner(name: str) -> None:
    query = query_of(name)
    choice = choose(query)
    for budget in (7, 3, 500):
        pool = pool_of(60, 12, budget)
        rng = np.random.default_rng(0)
        again = rerank(query.spec, pool, choice.agent, choice.strategy, rng)
        check(again, pool)
        assert again.strategy == choice.strategy
        if budget == 7:
            assert again.ids == choice.ids


def test_classical_strategies_need_nothing_and_differ() -> None:
    assert all(not STRATEGIES[name]().needs for name in CLASSICAL)
    pool = pool_of(150, 12, 7)
    chosen = {name: frozenset(choose(query_of(name, pool)).ids) for name in CLASSICAL}
    assert len(set(chosen.values())) == len(chosen)
    assert len({display_name(name) for name in CLASSICAL}) == len(CLASSICAL)


def test_a_report_that_raises_stops_the_agent() -> None:
    def cancelled(progress: Progress) -> None:
        raise InterruptedError

    query = query_of("mgral")
    with pytest.raises(InterruptedError):
        STRATEGIES["mgral"]().select(query, np.random.default_rng(0), cancelled)

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from mgral_service.domain.arrays import IntArray
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import Query
from mgral_service.domain.records import LookupRecord, ProxySpec
from mgral_service.domain.report import Choice, TableReport
from mgral_service.domain.seeds import Purpose, stream
from mgral_service.domain.specs import AgentAdvanced, AgentSpec, CycleSpec, TableSpec
from mgral_service.domain.value.lookup import LookupTable
from mgral_service.strategies import CLASSICAL, rerank
from mgral_service.strategies.mgral.select import Mgral, policy_weights
from tests.domain.pools import pool_of

FOLDS = tuple(pool_of(80, 20, 8, fold, seed=fold + 1) for fold in range(6))
POOL = pool_of(120, 30, 10, seed=50)
SPEC = CycleSpec(
    "d",
    10,
    table=TableSpec(records=72, folds=6),
    agent=AgentSpec(iterations=40, advanced=AgentAdvanced(draws=8, lane=32, learning_rate=3e-3)),
)
Worth = Callable[[CandidatePool, IntArray], float]


def choose(worth: Worth, spec: CycleSpec = SPEC, noise: float = 0.002) -> Choice:
    """What mgral chooses where a batch's mAP is its worth and some noise."""
    rng = np.random.default_rng(0)
    strategy = Mgral(CLASSICAL)
    query = Query(spec, POOL, FOLDS)

    def measured(index: int, role: str, by: str, fold: int, batch: tuple[str, ...]) -> LookupRecord:
        pool = FOLDS[fold]
        score = 0.3 + 0.02 * fold + worth(pool, pool.positions(batch))
        score += noise * rng.standard_normal()
        return LookupRecord("c1", index, role, by, fold, batch, score, 0, 1.0)  # type: ignore[arg-type]

    def of(planned: ProxySpec) -> LookupRecord:
        assert planned.fold is not None
        return measured(planned.index, planned.role, planned.chosen_by, planned.fold, planned.batch)

    records = [of(planned) for planned in strategy.plan(query)]

    def measure(batches: Mapping[int, tuple[str, ...]]) -> LookupTable:
        own = [
            measured(500 + fold, "candidate", "agent", fold, batch)
            for fold, batch in batches.items()
        ]
        return LookupTable.of([*records, *own], FOLDS)

    query = replace(query, table=LookupTable.of(records, FOLDS), measure=measure)
    return strategy.select(query, np.random.default_rng(0), lambda progress: None)


def by_novelty(pool: CandidatePool, batch: IntArray) -> float:
    return 0.05 * float(pool.novelty[batch].mean() - pool.novelty[pool.candidates].mean())


def report_of(choice: Choice) -> TableReport:
    assert choice.table is not None
    return choice.table


def test_the_candidate_that_gains_most_in_the_folds_chooses_though_its_prior_is_lowest() -> None:
    choice = choose(by_novelty)
    gains = {gain.name: gain for gain in report_of(choice).candidates}
    assert gains["coreset"].prior == min(gain.prior for gain in gains.values())
    assert choice.strategy in {"coreset", "agent"}
    assert gains["coreset"].posterior > gains["entropy_root"].posterior + 0.01
    assert {note.code for note in choice.notes} >= {"table.size", "choice", "table.weight"}


def test_where_nothing_differs_the_prior_chooses() -> None:
    choice = choose(lambda pool, batch: 0.0, noise=0.05)
    assert report_of(choice).candidates[0].measured is not None
    weight = next(note for note in choice.notes if note.code == "table.weight")
    assert float(weight.figures["measured_share"]) < 0.5


def test_the_agent_takes_part_and_its_batch_was_measured_in_every_fold() -> None:
    table = report_of(choose(by_novelty))
    agent = next(gain for gain in table.candidates if gain.name == "agent")
    assert agent.records == len(FOLDS)
    assert agent.measured is not None
    assert agent.measured > 0  # it learned in the other folds what is worth something
    assert {gain.name for gain in table.candidates} == {"agent", *CLASSICAL}
    assert table.reliability is not None
    assert table.reliability.informed


def test_the_agent_always_chooses_if_asked_and_leaves_its_weights() -> None:
    choice = choose(by_novelty, replace(SPEC, choice="agent"))
    assert choice.strategy == "agent"
    assert policy_weights(choice.agent)
    assert report_of(choice).agent_overlap == 1.0
    again = rerank(SPEC, POOL, choice.agent, "agent", np.random.default_rng(0))
    assert again.ids == choice.ids


def test_the_agent_without_weights_or_an_unknown_winner_cannot_rank() -> None:
    for winner in ("agent", "gp"):
        with pytest.raises(InvalidInput, match="cannot rank"):
            rerank(SPEC, POOL, {}, winner, np.random.default_rng(0))


def test_the_agent_needs_a_table() -> None:
    query = Query(replace(SPEC, choice="agent"), POOL)
    with pytest.raises(InvalidInput, match="needs a table"):
        Mgral(CLASSICAL).select(query, np.random.default_rng(0), lambda progress: None)


def test_a_choice_is_what_the_strategy_itself_would_choose() -> None:
    choice = choose(lambda pool, batch: 0.0, noise=0.05)
    if choice.strategy in CLASSICAL:
        rng = stream(SPEC.seed, Purpose.SELECT)
        alone = CLASSICAL[choice.strategy].pick(POOL, 10, rng)
        assert choice.ids == POOL.names(alone.positions)

"""MGRAL: candidates are measured where labels are known, and the highest posterior gain chooses.

A candidate is a rule that picks a batch from any set of images: the classical strategies, and the
agent. In each fold of the labelled images every candidate chooses a batch, and a proxy trained with
the labels of that batch measures it. A value model learns from all of these records, and the agent
learns from the value model by policy gradient. With `method = "paper"` proxies train on batches of
the pool without labels, and the agent chooses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mgral_service.agent.hierarchy import select_by_clusters
from mgral_service.agent.reinforce import TrainedAgent, train_agent
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.candidate_pool import CandidatePool, Ranking
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.folds import LEAST_LABELLED
from mgral_service.domain.ports import Query, Report, ValueModel
from mgral_service.domain.records import AGENT, ProxySpec
from mgral_service.domain.report import CandidateGain, Choice, TablePoint, TableReport
from mgral_service.domain.seeds import Purpose, seed_of, stream
from mgral_service.domain.specs import CycleSpec
from mgral_service.domain.value.features import agent_state
from mgral_service.domain.value.gains import candidate_gains
from mgral_service.domain.value.lookup import LookupTable
from mgral_service.domain.value.models import VALUE_MODELS
from mgral_service.domain.value.reliability import rank_reliability
from mgral_service.domain.value.transport import standardise
from mgral_service.strategies.classical import Rule
from mgral_service.strategies.mgral.plan import plan_proxies
from mgral_service.strategies.mgral.summary import summarise
from mgral_service.strategies.reasons import explain

_POLICY = "policy."  # prefix of the weights in Choice.agent


class Mgral:
    """ports.QueryStrategy. `rules`: the classical candidates."""

    name = "mgral"
    needs: frozenset[str] = frozenset({"table"})

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        self._rules = rules

    def plan(self, query: Query) -> list[ProxySpec]:
        """All proxies that are trained before `select`."""
        picks = {name: rule.pick for name, rule in self._rules.items()}
        return plan_proxies(query.spec, query.pool, query.folds, picks)

    def select(self, query: Query, rng: np.random.Generator, report: Report) -> Choice:
        """The candidate of the highest posterior gain, or the agent's batch if choice = "agent".

        Without a table (too few labelled images for folds) the prior chooses among the classical
        candidates.
        """
        spec, pool, table = query.spec, query.pool, query.table
        rankings = {
            name: rule.pick(pool, pool.batch_size, stream(spec.seed, Purpose.SELECT))
            for name, rule in self._rules.items()
        }
        if table is None:
            if spec.choice == "agent":
                raise InvalidInput(
                    "choice", f'"agent" needs a table, and that {LEAST_LABELLED} labelled images'
                )
            gains = candidate_gains(None, [*rankings])
            return self._choice(query, rankings, gains, None, None)
        if query.folds and query.measure is not None:
            table = query.measure(_agent_batches(spec, table, query.folds, report))
        model = VALUE_MODELS[spec.table.advanced.value_model](spec.table.advanced)
        model.fit(table)
        level = 0.0 if query.folds else float(table.scores.mean())
        reward = Reward(model, pool, level)
        seed = seed_of(spec.seed, Purpose.AGENT)
        agent = train_agent(
            _states(pool, spec)[pool.candidates],
            reward,
            pool.batch_size,
            spec.agent,
            seed,
            report,
        )
        rankings[AGENT] = _walked(pool, spec, agent.weights)
        gains = candidate_gains(table, [AGENT, *self._rules]) if query.folds else ()
        table_report = _table_report(spec, table, model, gains, agent, reward.misses)
        return self._choice(query, rankings, gains, table_report, agent)

    def _choice(
        self,
        query: Query,
        rankings: Mapping[str, Ranking],
        gains: tuple[CandidateGain, ...],
        table: TableReport | None,
        agent: TrainedAgent | None,
    ) -> Choice:
        spec, pool = query.spec, query.pool
        winner = AGENT if spec.choice == "agent" else gains[0].name
        ranking = rankings[winner]
        if table is not None:
            shared = np.isin(ranking.positions, rankings[AGENT].positions)
            table = replace(table, agent_overlap=float(shared.mean()))
        else:
            table = TableReport(gains, None, (), (), 0, 0.0)
        named = {name: rule.display_name for name, rule in self._rules.items()}
        named[AGENT] = "the agent"
        others = {
            named[name]: other.positions
            for name, other in rankings.items()
            if name not in (winner, "uniform")
        }
        return Choice(
            winner,
            pool.names(ranking.positions),
            ranking.scores,
            explain(pool, named[winner], ranking, others),
            {} if agent is None else {_POLICY + key: agent.weights[key] for key in agent.weights},
            table,
            summarise(table, spec, winner, named, len(pool.labelled)),
        )


class Reward:
    """What a value model estimates of batches of a pool's candidates.

    level   mAP that is added to each gain: the paper's rewards are mAP, and its Eq. 2 depends on it
    misses  estimates for which no record was near enough
    """

    def __init__(self, model: ValueModel, pool: CandidatePool, level: float = 0.0) -> None:
        self.misses = 0
        self._model, self._pool, self._level = model, pool, level

    def __call__(self, batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        """Mean [K] and standard deviation [K] of batches, positions among the candidates."""
        placed = [self._pool.candidates[batch] for batch in batches]
        self.misses += int(self._model.out_of_support(self._pool, placed).sum())
        gain, sd = self._model.estimate(self._pool, placed)
        return self._level + gain, sd


def _agent_batches(
    spec: CycleSpec, table: LookupTable, folds: Sequence[CandidatePool], report: Report
) -> dict[int, tuple[str, ...]]:
    """In each fold the batch of an agent that learned from the records of the other folds."""
    batches: dict[int, tuple[str, ...]] = {}
    for pool in folds:
        others = [record for record in table.records if record.fold != pool.fold]
        if len(others) < 2 or pool.fold is None:
            continue
        model = VALUE_MODELS[spec.table.advanced.value_model](spec.table.advanced)
        model.fit(LookupTable.of(others, [*table.pools.values()]))
        agent = train_agent(
            _states(pool, spec)[pool.candidates],
            Reward(model, pool),
            pool.batch_size,
            spec.agent,
            seed_of(spec.seed, Purpose.AGENT, pool.fold + 1),
            report,
        )
        batches[pool.fold] = pool.names(_walked(pool, spec, agent.weights).positions)
    return batches


def _states(pool: CandidatePool, spec: CycleSpec) -> FloatArray:
    """[N, S] what the policy reads of each image, standardised."""
    kind = spec.agent.advanced.state
    return standardise(agent_state(pool.predictions, len(pool.classes), kind))


def _walked(pool: CandidatePool, spec: CycleSpec, weights: Mapping[str, Any]) -> Ranking:
    """The policy's best candidates, of all or of its best clusters."""
    states = _states(pool, spec)[pool.candidates]
    best = select_by_clusters(
        weights,
        states,
        spec.agent.advanced.clusters,
        pool.batch_size,
        seed_of(spec.seed, Purpose.AGENT),
    )
    return Ranking(pool.candidates[best.positions], best.scores)


def _table_report(
    spec: CycleSpec,
    table: LookupTable,
    model: ValueModel,
    gains: tuple[CandidateGain, ...],
    agent: TrainedAgent,
    misses: int,
) -> TableReport:
    measured, estimated = table.gains(), model.held_out()
    points = tuple(
        TablePoint(
            record.index,
            record.role,
            record.chosen_by,
            record.fold,
            record.score,
            gain,
            estimate,
            record.duration_s,
        )
        for record, gain, estimate in zip(
            table.records, measured.tolist(), estimated.tolist(), strict=True
        )
    )
    rng = np.random.default_rng([spec.seed, Purpose.SELECT])
    reliability = rank_reliability(estimated, measured, table.folds, rng)
    return TableReport(gains, reliability, points, agent.history, misses, 0.0)


def policy_weights(agent: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """For `agent.policy.score`, from the arrays of a Choice; none if it has no agent."""
    return {
        name.removeprefix(_POLICY): np.asarray(value)
        for name, value in agent.items()
        if name.startswith(_POLICY)
    }


def rerank_agent(
    spec: CycleSpec,
    pool: CandidatePool,
    agent: Mapping[str, Any],
    winner: str,
) -> Choice:
    """See `strategies.rerank`."""
    weights = policy_weights(agent)
    if winner != AGENT or not weights:
        raise InvalidInput(
            "strategy", f"{winner!r} cannot rank for another budget: its weights are missing"
        )
    ranking = _walked(pool, spec, weights)
    reasons = explain(pool, "the agent", ranking, {})
    return Choice(AGENT, pool.names(ranking.positions), ranking.scores, reasons)

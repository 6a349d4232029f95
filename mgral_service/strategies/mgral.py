"""MGRAL: an agent trained on estimated mAP proposes a batch, and the best of a portfolio is taken.

The reward is read from the table of trained proxies through a value model. Two rules guard the
answer: the portfolio rule (never worse, by its own estimate, than the best rival) and the honesty
rule (a reward that ranks no better than chance may does not choose alone, and one that was surely
outdone where it was tried has no say).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mgral_service.agent.hierarchy import select_by_clusters
from mgral_service.agent.reinforce import Between, TrainedAgent, train_agent
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.evidence import (
    Candidate,
    Choice,
    Evidence,
    Reliability,
    TablePoint,
    Trial,
)
from mgral_service.domain.feature_model import FeatureModel
from mgral_service.domain.hindsight import weigh
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.noise import seed_noise
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import OnlineTable, Query, Report, ValueModel
from mgral_service.domain.records import AGENT, FALLBACK, PROPOSED
from mgral_service.domain.reliability import beyond_mean
from mgral_service.domain.seeds import Purpose, stream
from mgral_service.domain.specs import BEST_CLASSICAL, JOINED, CycleSpec
from mgral_service.domain.value import VALUE_MODELS
from mgral_service.strategies.account import tell
from mgral_service.strategies.classical import Pick, choose
from mgral_service.strategies.proposals import Proposals
from mgral_service.strategies.reasons import explain
from mgral_service.strategies.trials import (
    DEFAULT,
    LEARNED,
    best_classical,
    outdone,
    together,
    trials,
    unseen_choices,
)
from mgral_service.strategies.view import PoolView, Ranking

_POLICY = "policy."  # prefix of the weights in Choice.agent
_ORDER, _VALUES = ".order", ".values"  # [U] of a ranking of all unlabelled images, after its name
_SEEDS = 2**63 - 1


@dataclass(frozen=True, slots=True, eq=False)
class _Seeds:
    """One seed for each random part, drawn from the caller's rng in this order."""

    bootstrap: int
    agent: int

    @classmethod
    def draw(cls, rng: np.random.Generator) -> _Seeds:
        return cls(*(int(one) for one in rng.integers(_SEEDS, size=2)))


class Mgral:
    """The QueryStrategy; `rivals` are the classical picks that compete in its portfolio."""

    name = "mgral"
    needs: frozenset[str] = frozenset({"table"})

    def __init__(self, rivals: Mapping[str, Pick]) -> None:
        self._rivals = rivals

    def select(self, query: Query, rng: np.random.Generator, report: Report) -> Choice:
        """The portfolio's winner, or the pick of `spec.when_uninformed`; `evidence` says why.

        InvalidInput without a table of two records or more.
        """
        spec = query.spec
        alone = deepcopy(rng)
        view = PoolView(query.split, query.observation.out_of_fold, query.classes, replayed=True)
        seeds = _Seeds.draw(rng)
        reward = _Reward(view, spec)
        reward.fit(_table_of(query))
        if query.online is not None and spec.choice == "portfolio":
            reward.try_out(query.online)
        own = PoolView(query.split, query.observation, query.classes)
        rankings = _pick_all(self._rivals, own, view, spec.budget, alone)
        states = view.states(spec.agent.state)
        agent = _train(query, view, states, reward, seeds, report)
        default = self._rivals[DEFAULT](own, len(own.unlabelled), deepcopy(alone))
        whole = _whole(view, reward.model, spec.budget, _moved(default, own, view))
        rankings = {
            AGENT: _walked(view, states, spec, agent.weights, spec.budget, seeds),
            **{name: _first(one, spec.budget) for name, one in whole.items()},
            **rankings,
        }
        candidates = _valued(rankings, reward.model, spec.agent.caution)
        reliability = reward.model.reliability(np.random.default_rng(seeds.bootstrap))
        points = reward.points()
        tried = trials(points, self._rivals, query.earlier)
        beaten = outdone(spec.table.value_model, tried) is not None
        winner = candidates[0].name
        if spec.choice == "agent":
            winner = AGENT
        elif not reliability.informed or beaten:
            winner = _fallback(spec, tried, bool(whole) and reliability.leaning and not beaten)
        chosen = rankings[winner]
        overlap = np.isin(chosen.positions, rankings[AGENT].positions).mean()
        evidence = Evidence(
            reliability,
            candidates,
            agent.history,
            points,
            reward.misses,
            float(overlap),
            (),
            reward.fidelity,
            sum(design in PROPOSED for design in reward.table.designs),
            tried,
            reward.table.designs.count(FALLBACK),
            seed_noise(reward.table),
        )
        others = {name: one.positions for name, one in rankings.items() if name != winner}
        return Choice(
            winner,
            view.names(chosen.positions),
            chosen.scores,
            explain(view, winner, chosen, others, reward.table),
            _arrays(agent, whole),
            replace(evidence, words=tell(evidence, spec, winner, len(query.split.scoring))),
        )


class _Reward:
    """A value model and the table it was fitted to last, batches as positions in the view.

    fidelity  of records without labels (domain/hindsight.py)
    misses    rewards for which no record was near enough
    """

    def __init__(self, view: PoolView, spec: CycleSpec) -> None:
        build = VALUE_MODELS[spec.table.value_model]
        self.model = build(view.observation, view.labelled, view.classes, spec.table)
        self.table: LookupTable
        self.fidelity: Reliability | None = None
        self.misses = 0
        self._view, self._rotations, self._seed = view, spec.table.rotations, spec.seed

    def fit(self, table: LookupTable) -> None:
        """To a table whose positions are those of the query's observation."""
        moved = self._view.move(table)
        rng = stream(self._seed, Purpose.FIDELITY)
        self.table, self.fidelity = weigh(moved, self._rotations, rng)
        self.model.fit(self.table)

    def try_out(self, online: OnlineTable) -> None:
        """Train what the model would choose from reservoirs it was not taught, if there is room,
        and fit to that as well.
        """
        batches = unseen_choices(self.model, online.sites, self._view)
        if batches and len(batches) <= online.left:
            online.submit(batches)
            self.fit(online.join())

    def __call__(self, batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        """Of batches of unlabelled images (positions among those)."""
        before = self.model.misses
        found = self.model.estimate([self._view.unlabelled[batch] for batch in batches])
        self.misses += self.model.misses - before
        return found

    def promise(self, batches: Sequence[IntArray], rotation: int) -> FloatArray:
        """Upper confidence bounds [K] of batches of the view; of those of a reservoir by a model
        that knows no record of it, all alike where there is none. Infinite where no record is near.
        """
        return np.where(self.model.far(batches), np.inf, self._bounds(batches, rotation))

    def _bounds(self, batches: Sequence[IntArray], rotation: int) -> FloatArray:
        model = self.model
        if rotation:
            if not isinstance(model, FeatureModel):
                return np.zeros(len(batches))
            try:
                model = model.without(rotation)
            except InvalidInput:  # too few records of other rotations
                return np.zeros(len(batches))
        means, sds = model.estimate(batches)
        return means + sds

    def points(self) -> tuple[TablePoint, ...]:
        table = self.table
        gains = table.deviations()
        levels = table.scores - gains
        left_out = (self.model.left_out() - levels)[None]
        estimates = levels + beyond_mean(left_out, gains[None], table)[0]
        return tuple(
            TablePoint(
                int(table.indices[at]),
                table.designs[at],
                float(table.scores[at]),
                float(estimated),
                float(table.seconds[at]),
                table.sources[at],
                float(table.weights[at]),
                float(levels[at]),
                int(table.rotations[at]),
            )
            for at, estimated in enumerate(estimates)
        )


def _fallback(spec: CycleSpec, tried: Sequence[Trial], leaning: bool) -> str:
    """Who chooses where the reward does not alone. leaning: it may have a say."""
    if spec.when_uninformed not in (JOINED, BEST_CLASSICAL):
        return spec.when_uninformed
    best = best_classical(tried).name
    joins = leaning and best == DEFAULT and spec.when_uninformed == JOINED
    return together(spec.table.value_model) if joins else best


def _table_of(query: Query) -> LookupTable:
    if query.table is None or len(query.table) < 2:
        raise InvalidInput(
            "table",
            "mgral needs two trained proxies or more: train them, or choose another",
        )
    return query.table


def _pick_all(
    rivals: Mapping[str, Pick],
    own: PoolView,
    view: PoolView,
    budget: int,
    rng: np.random.Generator,
) -> dict[str, Ranking]:
    """What each would choose if it were the cycle's strategy, as positions in the view. own: what
    it would see then.
    """
    return {
        name: _moved(pick(own, budget, deepcopy(rng)), own, view) for name, pick in rivals.items()
    }


def _moved(ranking: Ranking, one: PoolView, other: PoolView) -> Ranking:
    return Ranking(other.places(one.names(ranking.positions)), ranking.scores)


def _train(
    query: Query,
    view: PoolView,
    states: FloatArray,
    reward: _Reward,
    seeds: _Seeds,
    report: Report,
) -> TrainedAgent:
    spec, online = query.spec, query.online
    between: Between | None = None
    if online is not None and online.left:
        between = Proposals(
            online,
            states,
            view.places,
            lambda: reward.table,
            reward.promise,
            reward.fit,
            spec.agent.temperature[1],
            spec.agent.iterations,
            np.random.default_rng([seeds.agent, 1]),
        )
    seen = states[view.unlabelled]
    return train_agent(seen, reward, spec.budget, spec.agent, seeds.agent, report, between=between)


def _walked(
    view: PoolView,
    states: FloatArray,
    spec: CycleSpec,
    weights: Mapping[str, np.ndarray[Any, Any]],
    budget: int,
    seeds: _Seeds,
) -> Ranking:
    """The policy's top-B, of all images or of its best clusters."""
    rng = np.random.default_rng([seeds.agent, 2])
    best = select_by_clusters(weights, states[view.unlabelled], spec.agent.clusters, budget, rng)
    return Ranking(view.unlabelled[best.positions], best.scores)


def _whole(view: PoolView, model: ValueModel, budget: int, default: Ranking) -> dict[str, Ranking]:
    """Every unlabelled image in the order in which a value model of LEARNED fills a batch, and by
    its mean rank there and in DEFAULT's; none of other models.
    """
    if not isinstance(model, FeatureModel):
        return {}
    filled = Ranking(*model.fill(view.unlabelled, budget))
    both = _joined(filled.positions, default.positions)
    return {model.name: filled, together(model.name): both}


def _joined(one: IntArray, other: IntArray) -> Ranking:
    """The same images by their mean rank in two orders; ties by position. Scores: 1 less the mean
    rank's share of all.
    """
    ranks = (np.argsort(one) + np.argsort(other)) / 2  # of the images in ascending order
    order = np.argsort(ranks, kind="stable")
    return Ranking(np.sort(one)[order], 1.0 - ranks[order] / len(one))


def _first(ranking: Ranking, budget: int) -> Ranking:
    return Ranking(ranking.positions[:budget], ranking.scores[:budget])


def _valued(
    rankings: Mapping[str, Ranking], model: ValueModel, caution: float
) -> tuple[Candidate, ...]:
    """Best first, by mean - caution * sd; ties in the order of `rankings`."""
    means, sds = model.estimate([one.positions for one in rankings.values()])
    valued = [
        Candidate(name, float(mean), float(sd))
        for name, mean, sd in zip(rankings, means, sds, strict=True)
    ]
    return tuple(sorted(valued, key=lambda one: one.sd * caution - one.value))


def _arrays(agent: TrainedAgent, whole: Mapping[str, Ranking]) -> dict[str, np.ndarray[Any, Any]]:
    arrays = {_POLICY + name: value for name, value in agent.weights.items()}
    for name, ranking in whole.items():
        arrays |= {name + _ORDER: ranking.positions, name + _VALUES: ranking.scores}
    return arrays


def policy_weights(agent: Mapping[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """For `agent.policy.score`, from the arrays of a Choice; none if it has no agent."""
    return {
        name.removeprefix(_POLICY): np.asarray(value)
        for name, value in agent.items()
        if name.startswith(_POLICY)
    }


def rerank(
    rivals: Mapping[str, Pick],
    spec: CycleSpec,
    split: PoolSplit,
    observation: PoolObservation,
    classes: tuple[str, ...],
    agent: Mapping[str, Any],
    winner: str,
    budget: int,
    rng: np.random.Generator,
) -> Choice:
    """See `strategies.rerank`. With the cycle's own budget and rng it gives the cycle's images."""
    classical = winner in rivals
    seen = observation if classical else observation.out_of_fold
    view = PoolView(split, seen, classes, replayed=not classical)
    if winner == AGENT:
        weights = policy_weights(agent)
        if not weights:
            raise InvalidInput("agent", "has no policy weights: its artifact is damaged")
        states = view.states(spec.agent.state)
        return choose(AGENT, view, _walked(view, states, spec, weights, budget, _Seeds.draw(rng)))
    if winner in {*LEARNED, *map(together, LEARNED)}:
        order, values = (np.asarray(agent.get(winner + part, ())) for part in (_ORDER, _VALUES))
        if not len(order) == len(values) == len(view.unlabelled):
            raise InvalidInput("agent", "has no value for each unlabelled image: it is damaged")
        return choose(winner, view, _first(Ranking(order, values), budget))
    if winner not in rivals:
        raise InvalidInput("strategy", f"no strategy {winner!r} can rank for another budget")
    return choose(winner, view, rivals[winner](view, budget, rng))

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from scipy.stats import spearmanr

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.evidence import Choice, TablePoint
from mgral_service.domain.idw import InverseDistance
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.ports import Query, Site
from mgral_service.domain.records import DesignedBatch
from mgral_service.domain.specs import AgentSpec, CycleSpec, TableSpec
from mgral_service.domain.transport import standardise
from mgral_service.strategies import CLASSICAL, STRATEGIES, rerank
from mgral_service.strategies.trials import DEFAULT, together
from tests.domain.pools import CLASSES, divide, mean_of, measure, measured_again, observe

BOTH = together("ridge")
SEEN = observe(160)
SPLIT = divide(SEEN, 40)
TWICE = replace(SEEN, unlearnt=observe(160, seed=5).detections.subset(SPLIT.labelled))
VALUES = 0.3 + 0.05 * standardise(SEEN.embeddings)[:, 0]


Model = Literal["ridge", "gp", "idw"]


def query_of(
    worth: Callable[[IntArray], float], records: int = 40, model: Model = "ridge"
) -> Query:
    table = TableSpec(records=records, value_model=model)
    agent = AgentSpec(iterations=40, draws=8, lane=32, learning_rate=3e-3)
    spec = CycleSpec("demo", 15, table=table, agent=agent)
    return Query(spec, SPLIT, SEEN, CLASSES, measure(SEEN, SPLIT, records, 15, worth))


def choose(query: Query) -> Choice:
    return STRATEGIES["mgral"]().select(query, np.random.default_rng(0), lambda progress: None)


def again(query: Query, choice: Choice, winner: str, budget: int) -> Choice:
    rng = np.random.default_rng(0)
    return rerank(
        query.spec, query.split, query.observation, CLASSES, choice.agent, winner, budget, rng
    )


def noise(seed: int = 0) -> Callable[[IntArray], float]:
    rng = np.random.default_rng(seed)
    return lambda batch: float(0.3 + 0.02 * rng.standard_normal())


def value_of(ids: tuple[str, ...]) -> float:
    return float(VALUES[[SEEN.ids.index(one) for one in ids]].mean())


@pytest.mark.parametrize("model", ["ridge", "gp"])
def test_a_clear_reward_is_followed_and_explained(model: Model) -> None:
    query = query_of(mean_of(VALUES), model=model)
    choice = choose(query)
    evidence = choice.evidence
    assert evidence is not None
    assert evidence.reliability.informed
    assert choice.strategy in {"agent", model}
    best = float(np.sort(VALUES[40:])[-15:].mean())
    assert value_of(choice.ids) - 0.3 > 0.8 * (best - 0.3)
    names = {one.name for one in evidence.candidates}
    assert names == {"agent", model, together(model), *CLASSICAL}
    assert evidence.candidates[0].name == choice.strategy
    assert len(evidence.history) == query.spec.agent.iterations
    assert [point.index for point in evidence.table] == list(range(40))
    told = [(one.estimated - one.level, one.measured - one.level) for one in evidence.table]
    assert spearmanr(*zip(*told, strict=True))[0] == pytest.approx(evidence.reliability.spearman)
    assert 0 <= evidence.agent_overlap <= 1
    assert any("informative" in line for line in evidence.words)
    assert any("ahead of" in line for line in evidence.words)


@pytest.mark.parametrize("scoring", [0, 60])
@pytest.mark.parametrize("name", sorted(CLASSICAL))
def test_a_rival_s_batch_is_the_one_it_would_choose_alone(name: str, scoring: int) -> None:
    """Though the reward sees labelled images out of fold, and scoring images, and draws random
    numbers of its own.
    """
    query = query_of(noise(), records=24)
    spec = replace(query.spec, when_uninformed=name)
    split = replace(
        SPLIT, unlabelled=SPLIT.unlabelled[scoring:], scoring=SPLIT.unlabelled[:scoring]
    )
    query = replace(query, spec=spec, observation=TWICE, split=split)
    alone = STRATEGIES[name]().select(query, np.random.default_rng(0), lambda progress: None)
    choice = choose(query)
    assert choice.ids == alone.ids
    rng = np.random.default_rng(0)
    later = rerank(spec, split, TWICE, CLASSES, choice.agent, name, spec.budget, rng)
    assert later.ids == choice.ids


def test_a_worth_without_information_says_so_and_falls_back() -> None:
    query = query_of(noise(), records=24)
    choice = choose(query)
    evidence = choice.evidence
    assert evidence is not None
    assert not evidence.reliability.informed
    assert choice.strategy == DEFAULT  # no other strategy was tried
    assert any("carried no information" in line for line in evidence.words)
    assert any(name.startswith("policy.") for name in choice.agent)


def doubtful() -> Query:
    """Whose reward is more noise than worth."""
    worth, rng = mean_of(VALUES), np.random.default_rng(0)
    return query_of(lambda batch: worth(batch) + 0.03 * float(rng.standard_normal()), records=24)


def test_a_reward_that_leans_chooses_together_with_the_default() -> None:
    query = doubtful()
    choice = choose(query)
    assert choice.strategy == BOTH
    assert choice.evidence is not None
    assert choice.evidence.reliability.leaning
    assert not choice.evidence.reliability.informed
    assert value_of(choice.ids) > value_of(again(query, choice, DEFAULT, 15).ids)
    ranks = dict.fromkeys(SPLIT.unlabelled, 0)
    for name in ("ridge", DEFAULT):
        for rank, image in enumerate(again(query, choice, name, len(ranks)).ids):
            ranks[image] += rank
    assert choice.ids == tuple(sorted(ranks, key=lambda image: (ranks[image], image))[:15])
    assert choice.scores[0] == pytest.approx(1 - ranks[choice.ids[0]] / 2 / len(ranks))


@pytest.mark.parametrize(
    ("rule", "earlier", "chosen"),
    [
        ("joined", "class_balance", "class_balance"),
        ("best_classical", "tilted", DEFAULT),
        ("coreset", "tilted", "coreset"),
    ],
)
def test_a_reward_that_leans_is_not_asked(rule: str, earlier: str, chosen: str) -> None:
    """Where a classical strategy is clearly ahead, or another rule was wished for."""
    query = doubtful()
    query = replace(query, spec=replace(query.spec, when_uninformed=rule))
    assert choose(replace(query, earlier=(gained(earlier, 0.1),))).strategy == chosen


def gained(design: str, gain: float) -> tuple[TablePoint, ...]:
    """Nine records of an earlier cycle."""
    return (TablePoint(0, design, 0.3 + gain, 0.3, 1.0, "hindsight", 1.0, 0.3),) * 9


def test_a_reward_whose_own_choices_were_outdone_does_not_choose() -> None:
    earlier = (*gained("ridge", 0.0), *gained("class_balance", 0.04))
    query = replace(query_of(mean_of(VALUES)), earlier=(earlier,))
    choice = choose(query)
    assert choice.strategy == "class_balance"
    assert choice.evidence is not None
    assert choice.evidence.reliability.informed
    told = " ".join(choice.evidence.words)
    assert "The reward was informative" in told
    assert "batches of the balance of classes gained more than those that its values" in told
    assert "So the balance of classes chose" in told
    assert "would have won" in told
    named = replace(query, spec=replace(query.spec, when_uninformed="coreset"))
    assert choose(named).strategy == "coreset"


def test_a_reward_that_the_default_outdid_has_no_say_beside_it() -> None:
    earlier = (*gained("ridge", 0.0), *gained(DEFAULT, 0.02))
    assert choose(replace(query_of(mean_of(VALUES)), earlier=(earlier,))).strategy == DEFAULT


@pytest.mark.parametrize("gain", [0.02, 0.04])
def test_a_reward_whose_own_choices_were_not_surely_outdone_chooses(gain: float) -> None:
    earlier = (*gained("ridge", 0.03), *gained("class_balance", gain))
    assert choose(replace(query_of(mean_of(VALUES)), earlier=(earlier,))).strategy in {
        "agent",
        "ridge",
    }


def test_where_the_reward_is_silent_earlier_trials_decide() -> None:
    query = replace(query_of(noise(), records=24), earlier=(gained("class_balance", 0.1),))
    choice = choose(query)
    assert choice.strategy == "class_balance"
    assert choice.evidence is not None
    first = choice.evidence.trials[0]
    assert (first.name, first.records, first.earlier) == ("class_balance", 9, 9)
    assert len(choice.evidence.table) == 24


def test_a_named_fallback_chooses_whatever_the_table_says() -> None:
    query = query_of(noise(), records=24)
    query = replace(query, spec=replace(query.spec, when_uninformed="coreset"))
    assert choose(query).strategy == "coreset"


@pytest.mark.parametrize("score", [0.36, 0.24])
def test_without_information_trials_decide_among_classical_strategies(score: float) -> None:
    query = query_of(noise(), records=24)
    assert query.table is not None
    designs = (*("class_balance",) * 2, *("uniform",) * 22)
    scores = np.where(np.arange(24) < 2, score, query.table.scores)
    table = replace(query.table, designs=designs, scores=scores)
    choice = choose(replace(query, table=table))
    assert choice.evidence is not None
    assert not choice.evidence.reliability.informed
    assert choice.strategy == ("class_balance" if score > 0.3 else DEFAULT)
    assert any("it gained more than the default" in one for one in choice.evidence.words) == (
        score > 0.3
    )


class Growing:
    """An OnlineTable whose proposals bring nothing new."""

    sites = (Site(tuple(SPLIT.unlabelled), 15, "semi_supervised", 0),)

    def __init__(self, table: LookupTable) -> None:
        self.left, self.joined, self._table = 4, 0, table
        self.designs: list[str] = []

    def submit(self, batches: Sequence[DesignedBatch]) -> None:
        self.left -= len(batches)
        self.designs += [one.design for one in batches]

    def join(self) -> LookupTable:
        self.joined += 1
        return self._table


def test_every_reward_without_a_near_record_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those before proposed batches joined the table as well; what is read otherwise is none. Here
    no record ever is.
    """
    query = query_of(mean_of(VALUES), model="idw")
    assert query.table is not None
    online = Growing(query.table)
    query = replace(query, online=online)
    rewards = 0
    estimate = InverseDistance.estimate

    def counting(
        self: InverseDistance, batches: Sequence[IntArray]
    ) -> tuple[FloatArray, FloatArray]:
        nonlocal rewards
        self.misses += len(batches)
        if len(batches) <= query.spec.agent.draws:
            rewards += len(batches)
        return estimate(self, batches)

    monkeypatch.setattr(InverseDistance, "estimate", counting)
    evidence = choose(query).evidence
    assert evidence is not None
    assert online.joined == 2
    assert evidence.misses == rewards > 0


@pytest.mark.parametrize("far", [True, False])
def test_batches_to_which_no_record_is_near_are_trained_as_such(
    far: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = query_of(mean_of(VALUES), model="idw")
    assert query.table is not None
    online = Growing(query.table)
    monkeypatch.setattr(InverseDistance, "far", lambda self, some: np.full(len(some), far))
    choose(replace(query, online=online))
    assert online.designs == ["fallback" if far else "agent"] * 4


def test_what_the_agent_proposed_and_what_was_measured_again_are_told() -> None:
    query = query_of(mean_of(VALUES), records=24)
    assert query.table is not None
    table = measured_again(query.table, 6)
    designs = ("agent", "fallback", *table.designs[2:])
    evidence = choose(replace(query, table=replace(table, designs=designs))).evidence
    assert evidence is not None
    assert (evidence.online, evidence.fallbacks) == (2, 1)
    assert evidence.noise is not None
    assert evidence.noise.pairs == 6
    assert evidence.reliability.records == 22
    assert any(one.startswith("By seeds alone a batch's score varies") for one in evidence.words)


def test_inverse_distance_has_no_ridge_candidate() -> None:
    evidence = choose(query_of(mean_of(VALUES), model="idw")).evidence
    assert evidence is not None
    assert {one.name for one in evidence.candidates} == {"agent", *CLASSICAL}


@pytest.mark.parametrize("winner", ["agent", "ridge", BOTH, "gp", "uniform"])
@pytest.mark.parametrize("scoring", [0, 60])
def test_every_kind_of_winner_can_rank_for_another_budget(winner: str, scoring: int) -> None:
    """As it did in the cycle, which may have seen scoring images too."""
    pool = SPLIT.unlabelled
    split = replace(SPLIT, unlabelled=pool[scoring:], scoring=pool[:scoring])
    query = query_of(mean_of(VALUES), model="gp" if winner == "gp" else "ridge")
    query = replace(query, observation=TWICE, split=split)
    choice = choose(query)
    assert again(query, choice, winner, 5).ids == again(query, choice, winner, 20).ids[:5]
    assert sorted(again(query, choice, winner, 500).ids) == sorted(split.unlabelled)
    if winner == choice.strategy:
        assert again(query, choice, winner, 15).ids == choice.ids


@pytest.mark.parametrize(
    ("winner", "message"),
    [("agent", "weights"), ("ridge", "value"), (BOTH, "value"), ("psychic", "psychic")],
)
def test_a_damaged_agent_is_refused(winner: str, message: str) -> None:
    query = query_of(mean_of(VALUES))
    with pytest.raises(InvalidInput, match=message):
        rerank(query.spec, SPLIT, SEEN, CLASSES, {}, winner, 5, np.random.default_rng(0))


def test_reasons_read_as_sentences() -> None:
    reason = choose(query_of(mean_of(VALUES))).reasons[0]
    assert reason.startswith(("Rank 1 of 15 by the agent", "Rank 1 of 15 by the ridge's values"))
    for part in ("% of the pool", "from the nearest labelled image", "would have taken it"):
        assert part in reason or "found nothing" in reason


def test_clusters_first_choose_from_the_best_clusters_and_rank_again_alike() -> None:
    query = query_of(mean_of(VALUES))
    spec = replace(query.spec, choice="agent", agent=replace(query.spec.agent, clusters=20))
    choice = choose(replace(query, spec=spec))
    assert choice.strategy == "agent"
    again = rerank(spec, SPLIT, SEEN, CLASSES, choice.agent, "agent", 15, np.random.default_rng(0))
    assert again.ids == choice.ids
    plain = choose(replace(query, spec=replace(query.spec, choice="agent")))
    assert plain.ids != choice.ids


def test_a_cycle_whose_agent_always_chooses_follows_noise_too() -> None:
    query = query_of(noise(), records=24)
    choice = choose(replace(query, spec=replace(query.spec, choice="agent")))
    assert choice.strategy == "agent"
    assert choice.evidence is not None
    assert any("The agent chose all the same" in line for line in choice.evidence.words)

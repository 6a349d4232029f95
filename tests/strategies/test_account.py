from __future__ import annotations

from dataclasses import replace

import pytest

from mgral_service.domain.records import (
    Candidate,
    Evidence,
    Reliability,
    RewardPoint,
    TablePoint,
    Trial,
)
from mgral_service.domain.specs import CycleSpec
from mgral_service.strategies.account import tell

TABLE = (TablePoint(0, "tilted", 0.2, 0.21, 1.0), TablePoint(1, "uniform", 0.3, 0.27, 1.0))
HISTORY = (RewardPoint(1, 0.21, 0.22, 0.0), RewardPoint(2, 0.25, 0.26, 0.0, 0.26))
AGENT, RIDGE = Candidate("agent", 0.31, 0.02), Candidate("ridge", 0.30, 0.02)
SPEC = CycleSpec("d", 3)


def words(
    low: float = 0.1,
    winner: str = "agent",
    misses: int = 0,
    candidates: tuple[Candidate, ...] = (AGENT, RIDGE),
    history: tuple[RewardPoint, ...] = HISTORY,
) -> str:
    evidence = Evidence(Reliability(2, 0.4, low, 0.7), candidates, history, TABLE, misses, 0.25, ())
    return " ".join(tell(evidence, SPEC, winner))


def test_an_informed_cycle_names_winner_rival_and_margin() -> None:
    told = words()
    assert "2 trained proxies, measured from 0.200 to 0.300" in told
    assert "made without a record rank like its measurement with Spearman 0.40 (95 %" in told
    assert "the agent won by estimated ap50 less 0.5 standard deviations: 0.310 ± 0.020" in told
    assert "by 0.0100, closer than the estimate's own error" in told
    assert "from 0.210 to 0.250" in told
    assert "shares" not in told
    assert "near enough" not in told


def test_a_wide_margin_is_no_tie() -> None:
    assert "own error" not in words(candidates=(AGENT, Candidate("coreset", 0.2, 0.02)))


def test_an_uninformed_cycle_says_who_chose_instead() -> None:
    told = words(low=-0.1, winner="uniform")
    assert "carried no information this cycle" in told
    assert "to gain more over uniform chance than its standard error; so uniform" in told
    assert "would have won" in told
    assert "shares 25 % of these images" in told


def test_it_says_how_classical_strategies_fared_here_and_elsewhere() -> None:
    tried = (
        Trial("entropy_sum", 2, 0.03, 1, 0.01, 0.01),
        Trial("uniform", 1, 0.01, spread=0.01),
        Trial("coreset", 0, 0.0, spread=0.01, elsewhere=-0.01),
    )
    silent = Reliability(2, 0.4, -0.1, 0.7)
    evidence = Evidence(silent, (AGENT,), HISTORY, TABLE, 0, 0.25, (), trials=tried)
    told = " ".join(tell(evidence, SPEC, "entropy_sum"))
    assert (
        "gained, over the other records of their kind: summed entropy +0.0300 (2 records, 1 of "
        "earlier cycles), uniform chance +0.0100 (1 record)." in told
    )
    assert (
        "at least on other pools, as 2 records more, they are expected to gain: summed entropy "
        "+0.0200 ± 0.0050, uniform chance +0.0033 ± 0.0058, core-set distance -0.0100 ± 0.0071."
        in told
    )
    assert "So summed entropy chose, of the classical strategies other than uniform chance" in told


def test_a_named_fallback_is_named() -> None:
    evidence = Evidence(Reliability(2, 0.4, -0.1, 0.7), (AGENT,), HISTORY, TABLE, 0, 0.25, ())
    told = " ".join(tell(evidence, replace(SPEC, when_uninformed="coreset"), "coreset"))
    assert "So core-set distance chose, as when_uninformed = 'coreset' says" in told


def test_misses_are_counted_in_words() -> None:
    assert "7 times no record was near enough" in words(misses=7)


def test_a_lone_candidate_and_no_training_are_told_shortly() -> None:
    told = words(candidates=(AGENT,), history=())
    assert "ahead of" not in told
    assert "iterations" not in told


def both_ways(pool_weight: float, fidelity: Reliability | None) -> Evidence:
    """Three hindsight records, a twin, one of the pool."""
    table = (
        *(TablePoint(at, "tilted", 0.3, 0.3, 1.0, "hindsight", 1.0, 0.1 * at) for at in range(3)),
        TablePoint(3, "tilted", 0.2, 0.2, 1.0, "semi_supervised", 0.0),
        TablePoint(4, "tilted", 0.2, 0.2, 1.0, "semi_supervised", pool_weight),
    )
    reliability = Reliability(3, 0.4, 0.1, 0.7)
    return Evidence(reliability, (AGENT, RIDGE), HISTORY, table, 0, 0.25, (), fidelity)


def test_it_says_that_hindsight_alone_spoke_and_why() -> None:
    told = " ".join(tell(both_ways(0.0, Reliability(8, 0.1, -0.4, 0.5)), SPEC, "agent"))
    assert "Hindsight spoke: the 3 proxies that count" in told
    assert "what helps beside a part of the labelled images" in told
    assert "made without records that share images with a batch rank like its" in told
    assert "Spearman 0.10 (95 % interval -0.40 to 0.50)" in told
    assert "so batches without labels were not asked" in told


def test_it_says_how_far_the_surrogate_counted_beside_hindsight() -> None:
    told = " ".join(tell(both_ways(0.25, Reliability(8, 0.7, 0.25, 0.9)), SPEC, "agent"))
    assert (
        "Both rewards spoke: 3 proxies trained on labelled batches with their labels, and 1" in told
    )
    assert "counting 0.25 of one of those" in told
    assert "so batches without labels were taken into account" in told


def test_it_says_that_the_surrogate_spoke_alone_and_when_labels_were_too_few() -> None:
    assert "The surrogate spoke" in words()
    assert "fewer than 12 labelled images" in words()
    spec = replace(SPEC, table=replace(SPEC.table, source="semi_supervised"))
    evidence = Evidence(Reliability(2, 0.4, 0.1, 0.7), (AGENT,), (), TABLE, 0, 0.25, ())
    assert "too few" not in " ".join(tell(evidence, spec, "agent"))


def test_an_agent_that_always_chooses_is_not_said_to_have_won() -> None:
    spec = replace(SPEC, choice="agent")
    evidence = Evidence(Reliability(2, 0.1, -0.4, 0.7), (RIDGE, AGENT), (), TABLE, 0, 1.0, ())
    told = " ".join(tell(evidence, spec, "agent"))
    assert "The agent chose all the same, as choice = 'agent' says." in told
    assert "would have won" in told


def test_batches_trained_while_it_learned_are_counted() -> None:
    evidence = replace(both_ways(0.0, None), online=4)
    assert "4 batches that it proposed were trained" in " ".join(tell(evidence, SPEC, "agent"))


@pytest.mark.parametrize(("records", "gain"), [(0, 0.0), (2, -0.02)])
def test_where_other_pools_outdid_the_ridge_no_gain_is_claimed_here(
    records: int, gain: float
) -> None:
    tried = (
        Trial("class_balance", records, gain, elsewhere=0.05),
        Trial("ridge", 2, -0.01),
    )
    clear = Reliability(2, 0.4, 0.1, 0.7)
    evidence = Evidence(clear, (AGENT,), HISTORY, TABLE, 0, 0.25, (), trials=tried)
    told = " ".join(tell(evidence, SPEC, "class_balance"))
    assert (
        "did not know, gained -0.0100; with what it gained on other pools, the balance of classes "
        "is expected to gain more than they are. So the balance of classes chose" in told
    )
    assert "and those of" not in told

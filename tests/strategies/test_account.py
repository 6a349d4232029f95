from __future__ import annotations

from dataclasses import replace

from mgral_service.domain.evidence import (
    Candidate,
    Evidence,
    Noise,
    Reliability,
    RewardPoint,
    TablePoint,
    Trial,
)
from mgral_service.domain.specs import CycleSpec
from mgral_service.strategies.account import tell
from mgral_service.strategies.trials import DEFAULT, together

TABLE = (TablePoint(0, "tilted", 0.2, 0.21, 1.0), TablePoint(1, "uniform", 0.3, 0.27, 1.0))
HISTORY = (RewardPoint(1, 0.21, 0.22, 0.0), RewardPoint(2, 0.25, 0.26, 0.0, 0.26))
AGENT, RIDGE = Candidate("agent", 0.31, 0.02), Candidate("ridge", 0.30, 0.02)
SPEC = CycleSpec("d", 3)


def told(
    evidence: Evidence, spec: CycleSpec = SPEC, winner: str = "agent", scoring: int = 10
) -> str:
    return " ".join(tell(evidence, spec, winner, scoring))


def words(
    low: float = 0.1,
    winner: str = "agent",
    misses: int = 0,
    candidates: tuple[Candidate, ...] = (AGENT, RIDGE),
    history: tuple[RewardPoint, ...] = HISTORY,
) -> str:
    evidence = Evidence(Reliability(2, 0.4, low, 0.7), candidates, history, TABLE, misses, 0.25, ())
    return told(evidence, winner=winner)


def test_an_informed_cycle_names_winner_rival_and_margin() -> None:
    said = words()
    assert "2 trained proxies, measured from 0.200 to 0.300" in said
    assert "made without a record rank like its measurement with Spearman 0.40 (95 %" in said
    assert "the agent won by the ap50 that a proxy is estimated to reach with it" in said
    assert "less 0.5 standard deviations: 0.310 ± 0.020" in said
    assert "by 0.0100, closer than the estimate's own error" in said
    assert "from 0.210 to 0.250" in said
    assert "shares" not in said
    assert "near enough" not in said


def test_a_wide_margin_is_no_tie() -> None:
    assert "own error" not in words(candidates=(AGENT, Candidate("coreset", 0.2, 0.02)))


def test_an_uninformed_cycle_says_who_chose_instead() -> None:
    said = words(low=-0.3, winner="entropy_root")
    assert "carried no information this cycle" in said
    assert "So the default, mean entropy times the root of objects, chose; no classical" in said
    assert "would have won" in said
    assert "shares 25 % of these images" in said


def test_a_cycle_that_leans_says_who_chose_together() -> None:
    said = words(low=-0.1, winner=together("ridge"))
    assert "The reward may have carried information this cycle: estimates made without" in said
    assert "whose middle half is above zero, but not all of it" in said
    assert (
        "So the ridge's values and mean entropy times the root of objects together chose, by the "
        "mean of an image's two ranks." in said
    )
    assert "would have won" in said


def test_it_says_how_classical_strategies_fared() -> None:
    tried = (
        Trial("entropy_sum", 4, 0.03, 1, 0.01),
        Trial("uniform", 1, 0.01, spread=0.01),
        Trial("coreset", 0, 0.0, spread=0.01),
    )
    silent = Reliability(2, 0.4, -0.1, 0.7)
    evidence = Evidence(silent, (AGENT,), HISTORY, TABLE, 0, 0.25, (), trials=tried)
    said = told(evidence, winner="entropy_sum")
    assert (
        "standard error: summed entropy +0.0300 ± 0.0050 (4 records, 1 of earlier cycles)." in said
    )
    assert "So summed entropy chose: where classical strategies were tried, it gained more" in said


def test_a_named_fallback_is_named() -> None:
    evidence = Evidence(Reliability(2, 0.4, -0.1, 0.7), (AGENT,), HISTORY, TABLE, 0, 0.25, ())
    said = told(evidence, replace(SPEC, when_uninformed="coreset"), "coreset")
    assert "So core-set distance chose, as when_uninformed = 'coreset' says" in said


def test_misses_are_counted_in_words() -> None:
    assert "7 times no record was near enough" in words(misses=7)


def test_batches_without_a_near_record_are_counted_among_those_proposed() -> None:
    evidence = Evidence(
        Reliability(2, 0.4, 0.1, 0.7), (AGENT,), HISTORY, TABLE, 3, 0.25, (), online=5, fallbacks=2
    )
    assert (
        "5 batches that it proposed were trained while it learned. To 2 of them no record was near "
        "before." in told(evidence)
    )
    assert "was near before" not in told(replace(evidence, fallbacks=0))


def test_what_seeds_do_is_told_beside_what_batches_do() -> None:
    evidence = Evidence(Reliability(2, 0.4, 0.1, 0.7), (AGENT,), HISTORY, TABLE, 0, 0.25, ())
    said = told(replace(evidence, noise=Noise(9, 0.012, 0.008, 0.022, 0.02)))
    assert "score varies by 0.0120 (standard deviation; 9 batches measured again from" in said
    assert "differ by 0.0200, seeds included: even an estimate without fault would" in said
    assert "correlate with what was measured by no more than about 0.80." in said
    silent = told(replace(evidence, noise=Noise(9, 0.03, 0.02, 0.05, 0.02)))
    assert "there is nothing in them but seeds." in silent
    unsure = told(replace(evidence, noise=Noise(4, 0.03, 0.015, 0.08, 0.02)))
    assert "from so few it cannot be told whether there is more in them than seeds." in unsure
    assert "another seed" not in told(evidence)


def test_a_lone_candidate_and_no_training_are_told_shortly() -> None:
    said = words(candidates=(AGENT,), history=())
    assert "ahead of" not in said
    assert "iterations" not in said


def both_ways(pool_weight: float | None, fidelity: Reliability | None) -> Evidence:
    """Four hindsight records, one of them of another's batch, a twin, and one of the pool."""
    table = (
        *(
            TablePoint(at, "tilted", 0.3, 0.3, 1.0, "hindsight", 1.0, 0.1 * at, 1 + at % 2)
            for at in range(3)
        ),
        TablePoint(3, "tilted", 0.3, 0.3, 1.0, "hindsight", 0.0, 0.0, 1),  # measured again
        TablePoint(4, "tilted", 0.2, 0.2, 1.0, "semi_supervised", 0.0, 0.0, 1),
        *(
            TablePoint(5, "tilted", 0.2, 0.2, 1.0, "semi_supervised", weight)
            for weight in (() if pool_weight is None else (pool_weight,))
        ),
    )
    reliability = Reliability(3, 0.4, 0.1, 0.7)
    return Evidence(reliability, (AGENT, RIDGE), HISTORY, table, 0, 0.25, (), fidelity)


def test_it_says_that_hindsight_alone_spoke_and_why() -> None:
    said = told(both_ways(None, Reliability(2, 0.1, -0.4, 0.5)))
    assert "tried strategies" not in said
    assert "Hindsight spoke: the 3 proxies that count" in said
    assert "what helps beside a part of the labelled images" in said
    assert "made without records that share images with a batch rank like its" in said
    assert "Spearman 0.10 (95 % interval -0.40 to 0.50)" in said
    assert "so other batches without labels were not asked" in said


def test_it_says_so_if_the_first_records_spoke_otherwise_of_the_surrogate() -> None:
    late = told(both_ways(None, Reliability(2, 0.3, 0.01, 0.5)))
    assert "but not by the first records, so other batches without labels were not asked" in late
    early = told(both_ways(0.0, Reliability(2, 0.3, -0.01, 0.5)))
    assert "so those of the pool count for nothing" in early


def test_it_says_how_far_the_surrogate_counted_beside_hindsight() -> None:
    said = told(both_ways(0.25, Reliability(8, 0.7, 0.25, 0.9)))
    assert "Both rewards spoke: 3 proxies trained on batches of labelled images with" in said
    assert "counting 0.25 of one of those" in said
    assert "so batches without labels were taken into account" in said


def test_it_says_that_the_surrogate_spoke_alone_and_when_labels_were_too_few() -> None:
    assert "The surrogate spoke" in words()
    assert "fewer than 12 labelled images" in words()
    spec = replace(SPEC, table=replace(SPEC.table, source="semi_supervised"))
    evidence = Evidence(Reliability(2, 0.4, 0.1, 0.7), (AGENT,), (), TABLE, 0, 0.25, ())
    assert "too few" not in told(evidence, spec)


def test_an_agent_that_always_chooses_is_not_said_to_have_won() -> None:
    spec = replace(SPEC, choice="agent")
    evidence = Evidence(Reliability(2, 0.1, -0.4, 0.7), (RIDGE, AGENT), (), TABLE, 0, 1.0, ())
    said = told(evidence, spec)
    assert "The agent chose all the same, as choice = 'agent' says." in said
    assert "would have won" in said


def test_batches_trained_while_it_learned_are_counted() -> None:
    evidence = replace(both_ways(0.0, None), online=4)
    assert "4 batches that it proposed were trained" in told(evidence)


def test_a_ridge_that_was_outdone_is_told_with_what_luck_may_have_given() -> None:
    tried = (
        Trial("class_balance", 8, 0.02, spread=0.02),
        Trial(DEFAULT, 8, -0.01, spread=0.02),
        Trial("ridge", 2, -0.03, spread=0.02),
    )
    clear = Reliability(2, 0.4, 0.1, 0.7)
    evidence = Evidence(clear, (AGENT,), HISTORY, TABLE, 0, 0.25, (), trials=tried)
    said = told(evidence, winner="class_balance")
    assert "But batches of the balance of classes gained more than those that its values" in said
    assert "by 0.0500 ± 0.0158, more than two standard errors. So the balance of" in said
    leaning = replace(evidence, reliability=Reliability(2, 0.4, -0.1, 0.7))
    said = told(leaning, winner="class_balance")
    assert "but not all of it. But batches of the balance of classes gained more" in said
    silent = replace(evidence, reliability=Reliability(2, 0.4, -0.5, 0.7))
    assert "But batches of" not in told(silent, winner="class_balance")


def test_it_says_which_images_stood_in_for_the_pool() -> None:
    enough, few = (told(both_ways(0.0, None), scoring=count) for count in (48, 47))
    assert "more tried" not in enough
    tryout = TablePoint(5, "entropy", 0.3, 0.3, 1.0, "hindsight", 0.0, 0.3, 3)
    with_tryout = replace(both_ways(0.0, None), table=(*both_ways(0.0, None).table, tryout))
    assert "1 more tried strategies in halves of them drawn anew." in told(with_tryout, scoring=48)
    assert "batches of scoring images with their labels. Beside all labelled images" in enough
    assert "a part of the 48 scoring images stood in for the pool" in enough
    assert "batches of labelled images with their labels" in few
    assert "With 48 scoring images or more these would stand in for the pool; there are 47." in few
    kept = replace(SPEC, table=replace(SPEC.table, reservoir="labelled"))
    alone = told(both_ways(0.0, None), kept, scoring=48)
    assert "batches of labelled images" in alone
    assert "would stand in" not in alone

"""What happened in a cycle's choice, in sentences: `Evidence.words`."""

from __future__ import annotations

from mgral_service.domain.evidence import Candidate, Evidence, Trial
from mgral_service.domain.hindsight import LEAST_LABELLED
from mgral_service.domain.specs import BEST_CLASSICAL, JOINED, LEAST_SCORING, CycleSpec
from mgral_service.strategies.reasons import spoken
from mgral_service.strategies.trials import DEFAULT, lead, outdone, together

_TOO_FEW = f" There are fewer than {LEAST_LABELLED} labelled images, too few for hindsight records."


def tell(evidence: Evidence, spec: CycleSpec, winner: str, scoring: int) -> tuple[str, ...]:
    """How far the reward can be trusted, who won by how much, how the agent did. scoring: how many
    scoring images there are.
    """
    return tuple(
        line
        for line in (
            _table(evidence),
            _source(evidence, spec, scoring),
            _fidelity(evidence),
            _noise(evidence),
            _honesty(evidence, spec, winner),
            _trials(evidence),
            _portfolio(evidence, spec),
            _agent(evidence),
            _overlap(evidence, winner),
            _online(evidence),
            _misses(evidence),
        )
        if line
    )


def _table(evidence: Evidence) -> str:
    measured = [point.measured for point in evidence.table]
    return (
        f"The table holds {len(measured)} trained proxies, "
        f"measured from {min(measured):.3f} to {max(measured):.3f}."
    )


def _source(evidence: Evidence, spec: CycleSpec, scoring: int) -> str:
    """Which of the two rewards spoke."""
    of, assumed = _reservoir(spec, scoring)
    tryouts = sum(one.rotation > spec.table.rotations for one in evidence.table)
    if tryouts:
        assumed += f" {tryouts} more tried strategies in halves of them drawn anew."
    counted = [point for point in evidence.table if point.weight > 0]
    with_labels = sum(point.source == "hindsight" for point in counted)
    if with_labels == len(counted):
        return (
            f"Hindsight spoke: the {with_labels} proxies that count were trained on batches of "
            f"{of} images with their labels.{assumed}"
        )
    if with_labels:
        trust = min(point.weight for point in counted)
        return (
            f"Both rewards spoke: {with_labels} proxies trained on batches of {of} images with "
            f"their labels, and {len(counted) - with_labels} on batches of the pool without "
            f"labels, each counting {trust:.2f} of one of those.{assumed}"
        )
    wanted = "" if spec.table.source == "semi_supervised" else _TOO_FEW
    return (
        f"The surrogate spoke: all proxies were trained on batches of the pool without "
        f"labels.{wanted}"
    )


def _reservoir(spec: CycleSpec, scoring: int) -> tuple[str, str]:
    """What images hindsight drew from, and what that leaves open."""
    if spec.table.draws_from_scoring(scoring):
        return "scoring", (
            f" Beside all labelled images a part of the {scoring} scoring images stood in for the "
            "pool, and the others told what it brought; they train no detector."
        )
    few = (
        f" With {LEAST_SCORING} scoring images or more these would stand in for the pool; there "
        f"are {scoring}."
        if spec.table.reservoir == "scoring"
        else ""
    )
    return "labelled", (
        " They tell what helps beside a part of the labelled images; that it helps beside all of "
        f"them too is assumed, not measured.{few}"
    )


def _fidelity(evidence: Evidence) -> str:
    found = evidence.fidelity
    if found is None:
        return ""
    of_pool = [one for one in evidence.table if not one.rotation]
    if any(one.weight > 0 for one in of_pool):
        verdict = "so batches without labels were taken into account"
    elif of_pool:
        verdict = "so those of the pool count for nothing"
    elif found.informed:
        verdict = "but not by the first records, so other batches without labels were not asked"
    else:
        verdict = "so other batches without labels were not asked"
    return (
        f"Measured on {found.records} batches both ways, a proxy that sees a batch without labels "
        f"ranks it as its labels do with Spearman {found.spearman:.2f} (95 % interval "
        f"{found.low:.2f} to {found.high:.2f}): {verdict}."
    )


def _noise(evidence: Evidence) -> str:
    found = evidence.noise
    if found is None:
        return ""
    if found.low >= found.batches:
        verdict = "there is nothing in them but seeds."
    elif found.ceiling == 0:
        verdict = "from so few it cannot be told whether there is more in them than seeds."
    else:
        verdict = (
            f"even an estimate without fault would correlate with what was measured by no more "
            f"than about {found.ceiling:.2f}."
        )
    return (
        f"By seeds alone a batch's score varies by {found.seeds:.4f} (standard deviation; "
        f"{found.pairs} batches measured again from another seed, 95 % interval {found.low:.4f} to "
        f"{found.high:.4f}). Batches of one kind differ by {found.batches:.4f}, seeds included: "
        f"{verdict}"
    )


def _honesty(evidence: Evidence, spec: CycleSpec, winner: str) -> str:
    rank = evidence.reliability
    levels = {one.level for one in evidence.table if one.source == "hindsight" and one.weight > 0}
    without = "records that share images with a batch" if len(levels) > 1 else "a record"
    measured = (
        f"estimates made without {without} rank like its measurement with Spearman "
        f"{rank.spearman:.2f} (95 % interval {rank.low:.2f} to {rank.high:.2f})"
    )
    beaten = outdone(spec.table.value_model, evidence.trials)
    if rank.informed:
        verdict = f"The reward was informative: {measured}."
        tried = any(one.name == spec.table.value_model for one in evidence.trials)
        if not tried and spec.choice == "portfolio":
            verdict += " What it would choose where labels are known was not tried."
        if beaten is None:
            return verdict
    else:
        short = (
            "whose middle half is above zero, but not all of it"
            if rank.leaning
            else "which is not above zero"
        )
        verdict = f"The reward {rank.verdict} this cycle: {measured}, {short}."
    if beaten is not None and rank.leaning:
        verdict = f"{verdict} {_outdone(*beaten)}"
    if spec.choice == "agent":
        because = "The agent chose all the same, as choice = 'agent' says."
    elif spec.when_uninformed not in (JOINED, BEST_CLASSICAL):
        because = f"So {spoken(winner)} chose, as when_uninformed = {winner!r} says."
    elif winner == together(spec.table.value_model):
        because = f"So {spoken(winner)} chose, by the mean of an image's two ranks."
    else:
        because = _of_classical(winner)
    return f"{verdict} {because}"


def _outdone(own: Trial, best: Trial) -> str:
    gained, error = lead(best, own)
    return (
        f"But batches of {spoken(best.name)} gained more than those that its values chose, from "
        f"images whose records they did not know: by {gained:.4f} ± {error:.4f}, more than two "
        "standard errors."
    )


def _of_classical(winner: str) -> str:
    if winner == DEFAULT:
        return (
            f"So the default, {spoken(winner)}, chose; no classical strategy gained more where "
            "they were tried, by more than two standard errors of the difference."
        )
    return (
        f"So {spoken(winner)} chose: where classical strategies were tried, it gained more than "
        f"the default, {spoken(DEFAULT)}, by more than two standard errors of the difference."
    )


def _trials(evidence: Evidence) -> str:
    gained = ", ".join(
        f"{spoken(one.name)} {one.gain:+.4f} ± {one.error:.4f} "
        f"({one.records} record{'s' * (one.records > 1)}"
        f"{f', {one.earlier} of earlier cycles' if one.earlier else ''})"
        for one in evidence.trials
        if one.records and one.name != "uniform"
    )
    return gained and (
        "Batches that one strategy chose gained, over uniform ones of their kind and with their "
        f"standard error: {gained}."
    )


def _portfolio(evidence: Evidence, spec: CycleSpec) -> str:
    first, *rest = evidence.candidates
    spoke = evidence.reliability.informed and not outdone(spec.table.value_model, evidence.trials)
    won = "won" if spoke and spec.choice == "portfolio" else "would have won"
    opening = (
        f"Of {len(evidence.candidates)} candidate batches {spoken(first.name)} {won} by the "
        f"{spec.rewarded_by} that a proxy is estimated to reach with it, no forecast of the "
        f"detector's, less {spec.agent.caution:g} standard deviations: {_figure(first)}"
    )
    if not rest:
        return f"{opening}."
    second = rest[0]
    margin = _worth(first, spec) - _worth(second, spec)
    close = ", closer than the estimate's own error" if margin < first.sd else ""
    return f"{opening}, ahead of {spoken(second.name)} ({_figure(second)}) by {margin:.4f}{close}."


def _worth(one: Candidate, spec: CycleSpec) -> float:
    return one.value - spec.agent.caution * one.sd


def _figure(one: Candidate) -> str:
    return f"{one.value:.3f} ± {one.sd:.3f}"


def _agent(evidence: Evidence) -> str:
    history = evidence.history
    if not history:
        return ""
    return (
        f"In {len(history)} iterations the mean reward of what the agent drew went from "
        f"{history[0].reward:.3f} to {history[-1].reward:.3f}, "
        f"each by the table as it was then."
    )


def _overlap(evidence: Evidence, winner: str) -> str:
    if winner == "agent":
        return ""
    return f"The agent's own batch shares {100 * evidence.agent_overlap:.0f} % of these images."


def _online(evidence: Evidence) -> str:
    if not evidence.online:
        return ""
    near = (
        f" To {evidence.fallbacks} of them no record was near before." if evidence.fallbacks else ""
    )
    return f"{evidence.online} batches that it proposed were trained while it learned.{near}"


def _misses(evidence: Evidence) -> str:
    if not evidence.misses:
        return ""
    return (
        f"{evidence.misses} times no record was near enough to a batch: "
        "its reward was the table's mean."
    )

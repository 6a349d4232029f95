"""What happened in a cycle's choice, in sentences: `Evidence.words`."""

from __future__ import annotations

from mgral_service.domain.records import Candidate, Evidence
from mgral_service.domain.specs import CycleSpec
from mgral_service.strategies.reasons import spoken


def tell(evidence: Evidence, spec: CycleSpec, winner: str) -> tuple[str, ...]:
    """How far the reward can be trusted, who won by how much, how the agent did."""
    return tuple(
        line
        for line in (
            _table(evidence),
            _honesty(evidence, spec, winner),
            _portfolio(evidence, spec),
            _agent(evidence),
            _overlap(evidence, winner),
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


def _honesty(evidence: Evidence, spec: CycleSpec, winner: str) -> str:
    rank = evidence.reliability
    measured = (
        f"estimates made without a record rank like its measurement with Spearman "
        f"{rank.spearman:.2f} (95 % interval {rank.low:.2f} to {rank.high:.2f})"
    )
    if rank.informed:
        return f"The reward was informative: {measured}."
    return (
        f"The reward carried no information this cycle: {measured}, which reaches zero. "
        f"So {spoken(winner)} chose, as when_uninformed = {spec.when_uninformed!r} says."
    )


def _portfolio(evidence: Evidence, spec: CycleSpec) -> str:
    first, *rest = evidence.candidates
    won = "won" if evidence.reliability.informed else "would have won"
    opening = (
        f"Of {len(evidence.candidates)} candidate batches {spoken(first.name)} {won} by estimated "
        f"{spec.metric} less {spec.agent.caution:g} standard deviations: {_figure(first)}"
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
        f"In {len(history)} iterations the agent's mean reward went from "
        f"{history[0].reward:.3f} to {history[-1].reward:.3f}."
    )


def _overlap(evidence: Evidence, winner: str) -> str:
    if winner == "agent":
        return ""
    return f"The agent's own batch shares {100 * evidence.agent_overlap:.0f} % of these images."


def _misses(evidence: Evidence) -> str:
    if not evidence.misses:
        return ""
    return (
        f"{evidence.misses} times no record was near enough to a batch: "
        "its reward was the table's mean."
    )

"""What the table told and who chose, as notes of the report."""

from __future__ import annotations

from collections.abc import Mapping

from mgral_service.domain.folds import LEAST_LABELLED
from mgral_service.domain.report import CandidateGain, Note, TableReport
from mgral_service.domain.specs import CycleSpec

LITTLE = 0.5  # of the winner's posterior: below it the prior weighs more than the measurement


def summarise(
    table: TableReport,
    spec: CycleSpec,
    winner: str,
    display_names: Mapping[str, str],
    labelled: int,
) -> tuple[Note, ...]:
    """How far the reward can be trusted, who chose by how much, how the agent did. labelled: images
    with labels before the cycle.
    """
    notes = [
        _size(table, spec, labelled),
        _reliability(table, spec),
        _choice(table, spec, winner, display_names),
        _weight(table, winner, display_names),
        _agent(table, winner),
        _misses(table),
    ]
    return tuple(note for note in notes if note is not None)


def _size(table: TableReport, spec: CycleSpec, labelled: int) -> Note:
    if not table.points:
        return Note(
            "table.none",
            f"No proxy was trained: folds need {LEAST_LABELLED} labelled images or more, and "
            f"there are {labelled}. The prior chose.",
            {"labelled": labelled},
        )
    records, folds = len(table.points), len({point.fold for point in table.points})
    if spec.method == "paper":
        text = f"The table holds {records} proxies, trained on batches of the pool without labels."
    else:
        text = (
            f"The table holds {records} proxies, trained in {folds} folds of the {labelled} "
            "labelled images on batches whose labels are known."
        )
    return Note("table.size", text, {"records": records, "folds": folds, "labelled": labelled})


def _reliability(table: TableReport, spec: CycleSpec) -> Note | None:
    rank = table.reliability
    if rank is None:
        return None
    figures = {"spearman": rank.spearman, "low": rank.low, "high": rank.high}
    interval = f"Spearman {rank.spearman:.2f} ({rank.low:.2f} to {rank.high:.2f})"
    if rank.informed:
        text = f"The value model ranks unseen batches with {interval}."
    else:
        text = (
            f"The value model does not rank unseen batches reliably: {interval}. The agent's "
            "reward is uncertain."
        )
    return Note("table.reliability", text, figures)


def _choice(
    table: TableReport, spec: CycleSpec, winner: str, display_names: Mapping[str, str]
) -> Note:
    if spec.choice == "agent":
        return Note("choice", 'The agent chose, as choice = "agent" says.', {"winner": winner})
    first, *rest = table.candidates
    text = f"Chosen by {display_names[winner]}: gain over a uniform batch {_figure(first)}."
    figures: dict[str, float | int | str] = {
        "winner": winner,
        "posterior": first.posterior,
        "posterior_sd": first.posterior_sd,
    }
    if rest:
        text += f" Next: {display_names[rest[0].name]}, {_figure(rest[0])}."
        figures |= {"second": rest[0].name, "second_posterior": rest[0].posterior}
    return Note("choice", text, figures)


def _figure(gain: CandidateGain) -> str:
    figure = f"{gain.posterior:+.4f} ± {gain.posterior_sd:.4f} (prior {gain.prior:+.4f}"
    if gain.measured is None or gain.error is None:
        return f"{figure}, not measured)"
    return f"{figure}, measured {gain.measured:+.4f} ± {gain.error:.4f})"


def _weight(table: TableReport, winner: str, display_names: Mapping[str, str]) -> Note | None:
    """How much the measurements count beside the prior, and whether they changed the choice."""
    gain = next((gain for gain in table.candidates if gain.name == winner), None)
    if gain is None or gain.error is None or gain.prior_sd == 0:
        return None
    weight = gain.prior_sd**2 / (gain.prior_sd**2 + gain.error**2)
    by_prior = max(table.candidates, key=lambda candidate: candidate.prior).name
    share = f"{100 * weight:.0f} % of this estimate is measured, the rest is the prior"
    if by_prior != winner:
        text = f"The table changed the choice: {share}, which favours {display_names[by_prior]}."
    elif weight < LITTLE:
        text = f"This cycle's table told little: {share}, and the prior alone chooses the same."
    else:
        text = f"The table confirmed the prior's choice: {share}."
    return Note("table.weight", text, {"measured_share": weight, "prior_choice": by_prior})


def _agent(table: TableReport, winner: str) -> Note | None:
    if not table.history:
        return None
    first, last = table.history[0].reward, table.history[-1].reward
    text = (
        f"In {len(table.history)} iterations the estimated gain of what the agent draws went from "
        f"{first:+.4f} to {last:+.4f}."
    )
    if winner != "agent":
        text += f" Its batch shares {100 * table.agent_overlap:.0f} % of the chosen images."
    return Note(
        "agent",
        text,
        {"first_reward": first, "last_reward": last, "overlap": table.agent_overlap},
    )


def _misses(table: TableReport) -> Note | None:
    if not table.misses:
        return None
    text = (
        f"{table.misses} times no record was near enough to a batch: its reward was the table's "
        "mean."
    )
    return Note("table.misses", text, {"misses": table.misses})

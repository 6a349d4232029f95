from __future__ import annotations

from dataclasses import replace

from mgral_service.domain.report import (
    CandidateGain,
    Reliability,
    RewardPoint,
    TablePoint,
    TableReport,
)
from mgral_service.domain.specs import CycleSpec
from mgral_service.strategies.mgral.summary import summarise

NAMES = {"coreset": "core-set", "entropy_root": "mean entropy times root of objects"}
TABLE = TableReport(
    candidates=(
        CandidateGain("coreset", 8, 0.021, 0.006, -0.0062, 0.01, 0.0138, 0.0051),
        CandidateGain("entropy_root", 8, -0.001, 0.006, 0.0125, 0.01, 0.0026, 0.0051),
    ),
    reliability=Reliability(96, 0.58, 0.31, 0.77),
    points=tuple(TablePoint(n, "tilted", "tilted", n % 8, 0.3, 0.0, 0.0, 1.0) for n in range(96)),
    history=(RewardPoint(1, 0.001, 0.002, 0.1), RewardPoint(2, 0.012, 0.02, 0.1)),
    misses=0,
    agent_overlap=0.4,
)
SPEC = CycleSpec("d", 40)


def test_a_report_reads_like_this() -> None:
    """The one snapshot of a report."""
    assert [note.text for note in summarise(TABLE, SPEC, "coreset", NAMES, 300)] == [
        "The table holds 96 proxies, trained in 8 folds of the 300 labelled images on batches "
        "whose labels are known.",
        "The value model ranks unseen batches with Spearman 0.58 (0.31 to 0.77).",
        "Chosen by core-set: gain over a uniform batch +0.0138 ± 0.0051 (prior -0.0062, measured "
        "+0.0210 ± 0.0060). Next: mean entropy times root of objects, +0.0026 ± 0.0051 (prior "
        "+0.0125, measured -0.0010 ± 0.0060).",
        "The table changed the choice: 74 % of this estimate is measured, the rest is the prior, "
        "which favours mean entropy times root of objects.",
        "In 2 iterations the estimated gain of what the agent draws went from +0.0010 to +0.0120. "
        "Its batch shares 40 % of the chosen images.",
    ]


def codes(table: TableReport, spec: CycleSpec = SPEC, winner: str = "coreset") -> list[str]:
    return [note.code for note in summarise(table, spec, winner, NAMES, 300)]


def test_notes_have_codes_and_figures() -> None:
    notes = {note.code: note.figures for note in summarise(TABLE, SPEC, "coreset", NAMES, 300)}
    assert notes["table.reliability"] == {"spearman": 0.58, "low": 0.31, "high": 0.77}
    assert notes["choice"]["winner"] == "coreset"
    assert notes["table.weight"]["prior_choice"] == "entropy_root"


def test_what_is_absent_is_not_mentioned() -> None:
    bare = TableReport(TABLE.candidates, None, (), (), 0, 0.0)
    assert codes(bare)[0] == "table.none"
    missed = replace(TABLE, misses=3)
    assert codes(missed)[-1] == "table.misses"


def test_the_paper_s_table_names_no_candidate() -> None:
    table = replace(TABLE, candidates=())
    spec = CycleSpec("d", 40, method="paper", choice="agent")
    assert codes(table, spec, "agent") == ["table.size", "table.reliability", "choice", "agent"]

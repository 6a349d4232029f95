"""What a cycle measured, what it chose by that, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.records import Role
from mgral_service.domain.specs import CycleSpec


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence of a report for people, with a stable code and its figures for programs."""

    code: str
    text: str
    figures: Mapping[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Spearman's rank correlation between held-out estimates and measurements of a table's records.

    low, high: 95 % interval; the reward is informed if it lies above zero.
    """

    records: int
    spearman: float
    low: float
    high: float

    @property
    def informed(self) -> bool:
        return self.low > 0


@dataclass(frozen=True, slots=True)
class CandidateGain:
    """How much more mAP a candidate's batch brings than a uniform one, as fractions.

    records          trained proxies on batches that the candidate chose
    measured, error  mean gain over the folds and its standard error; None where none was measured
    prior, prior_sd  mean gain on other datasets and its spread between them
    posterior, posterior_sd  the measured gain shrunk toward the prior by both variances
    """

    name: str
    records: int
    measured: float | None
    error: float | None
    prior: float
    prior_sd: float
    posterior: float
    posterior_sd: float


@dataclass(frozen=True, slots=True)
class RewardPoint:
    """One iteration of the agent's training: mean and best reward of its draws, loss, value of the
    greedy top-B if taken.
    """

    iteration: int
    reward: float
    best: float
    loss: float
    greedy: float | None = None


@dataclass(frozen=True, slots=True)
class TablePoint:
    """A record as the report shows it.

    score      measured mAP
    gain       score less the mean of its fold
    estimated  the same as the value model estimates it without the records of that fold (without
               that record, where there is no fold)
    """

    index: int
    role: Role
    chosen_by: str
    fold: int | None
    score: float
    gain: float
    estimated: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class TableReport:
    """What the table told.

    candidates     highest posterior gain first; empty for the paper's method
    reliability    of the value model; None for fewer than three records
    history        of the agent's training
    misses         rewards read where the table had no record near enough
    agent_overlap  share of the chosen batch that the agent's own batch holds as well
    """

    candidates: tuple[CandidateGain, ...]
    reliability: Reliability | None
    points: tuple[TablePoint, ...]
    history: tuple[RewardPoint, ...]
    misses: int
    agent_overlap: float


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What a strategy answers: B distinct ids, best first, each with its score [B] and a reason.

    strategy   what chose: the strategy's own name, or for "mgral" the winning candidate
    agent      the trained policy's weights by name; empty for strategies without an agent
    """

    strategy: str
    ids: tuple[str, ...]
    scores: FloatArray
    reasons: tuple[str, ...]
    agent: Mapping[str, Any] = field(default_factory=dict)
    table: TableReport | None = None
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """A phase that ran: how long, and what it made."""

    phase: str
    duration_s: float
    made: str


@dataclass(frozen=True, slots=True)
class CycleReport:
    """A cycle in figures. mAP is a fraction by `metric`; None where there is no such split or no
    annotations yet. labelled, unlabelled, scoring, test: images before the cycle.
    """

    cycle: str
    spec: CycleSpec
    labelled: int
    unlabelled: int
    scoring: int
    test: int
    phases: tuple[PhaseTime, ...]
    failed_proxies: tuple[str, ...] = ()
    table: TableReport | None = None
    scoring_before: float | None = None
    test_before: float | None = None
    scoring_after: float | None = None
    test_after: float | None = None
    notes: tuple[Note, ...] = ()

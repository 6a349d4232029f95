"""What a cycle measured, what it chose by that, and its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import hypot
from typing import Any

from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.records import Source
from mgral_service.domain.specs import CycleSpec


@dataclass(frozen=True, slots=True)
class Reliability:
    """Rank correlation between left-out estimates and measurements of a table's records.

    low, high: 95 % bootstrap interval of Spearman's rho; the reward is informed if it lies above
    zero, and leaning if its middle half does, a standard error to either side.
    """

    records: int
    spearman: float
    low: float
    high: float

    @property
    def informed(self) -> bool:
        return self.low > 0

    @property
    def leaning(self) -> bool:
        return 3 * self.low + self.high > 0

    @property
    def verdict(self) -> str:
        """What the reward did, in words."""
        if self.informed:
            return "carried information"
        return "may have carried information" if self.leaning else "carried no information"


@dataclass(frozen=True, slots=True)
class Noise:
    """What seeds alone do to a record's score, beside what batches do.

    pairs    batches that were measured twice
    seeds    standard deviation of one measurement of a batch, beside what a seed does to all of one
             source and rotation alike; low, high: its 95 % interval
    batches  standard deviation of the records of one source and rotation, seeds included
    """

    pairs: int
    seeds: float
    low: float
    high: float
    batches: float

    @property
    def ceiling(self) -> float:
        """Correlation with what was measured of an estimate that knows what each batch is worth."""
        return max(0.0, 1.0 - (self.seeds / self.batches) ** 2) ** 0.5 if self.batches > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A batch of the portfolio with its estimated mAP (mean and standard deviation)."""

    name: str
    value: float
    sd: float


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
    """A record as the report shows it; `estimated` is `level` and what the value model, with this
    record and its block (LookupTable.blocks) left out, says beyond the mean of what was left in;
    `weight` in [0, 1] is how far it counted there, `level` the mean of the records it is compared
    with (same source, same reservoir); rotation: see DesignedBatch.
    """

    index: int
    design: str
    measured: float
    estimated: float
    seconds: float
    source: Source = "semi_supervised"
    weight: float = 1.0
    level: float = 0.0
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class Trial:
    """How a strategy fared where it was tried: in records of batches that it chose.

    gain: mean over those records of what each measured, over uniform batches of its kind and cycle,
    a fraction of mAP; earlier: how many of them are of earlier cycles; spread: standard deviation
    of a record; zero: standard error of those uniform batches' mean
    """

    name: str
    records: int
    gain: float
    earlier: int = 0
    spread: float = 0.0
    zero: float = 0.0

    @property
    def error(self) -> float:
        """Standard error of the gain; infinite without a record."""
        return hypot(self.own_error, self.zero)

    @property
    def own_error(self) -> float:
        """The part that is its own: uniform batches are shared with what was tried beside them."""
        return self.spread / self.records**0.5 if self.records else float("inf")


@dataclass(frozen=True, slots=True)
class Evidence:
    """Why MGRAL chose as it did."""

    reliability: Reliability
    candidates: tuple[Candidate, ...]
    history: tuple[RewardPoint, ...]
    table: tuple[TablePoint, ...]
    misses: int  # rewards read where the table had no record near enough
    agent_overlap: float  # share of the final batch that the agent's greedy top-B holds as well
    words: tuple[str, ...]  # the same, in sentences
    fidelity: Reliability | None = None  # of records without labels, where some had a twin with
    online: int = 0  # records of batches that the agent proposed while it learned
    trials: tuple[Trial, ...] = ()  # highest gain first
    fallbacks: int = 0  # of `online`, those to which no record was near
    noise: Noise | None = None  # where batches enough were measured twice


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What a strategy answers: B distinct ids, best first, each with its score [B] and a reason.

    strategy   what chose: the strategy's own name, or for "mgral" the winner of its portfolio
    agent      the trained policy's weights by name, and per-image values of other rankings; empty
               for classical ones
    """

    strategy: str
    ids: tuple[str, ...]
    scores: FloatArray
    reasons: tuple[str, ...]
    agent: Mapping[str, Any] = field(default_factory=dict)
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True)
class PhaseTime:
    """A phase that ran: how long, and what it made."""

    phase: str
    seconds: float
    made: str


@dataclass(frozen=True, slots=True)
class CycleReport:
    """A cycle in figures. mAP is a fraction by `metric`; None where there is no such split or no
    annotations yet.
    """

    cycle: str
    spec: CycleSpec
    labelled: int
    unlabelled: int
    scoring: int
    test: int
    phases: tuple[PhaseTime, ...]
    failed_proxies: tuple[str, ...] = ()
    evidence: Evidence | None = None
    scoring_before: float | None = None
    test_before: float | None = None
    scoring_after: float | None = None
    test_after: float | None = None
    words: tuple[str, ...] = ()

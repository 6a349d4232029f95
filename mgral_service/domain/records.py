"""Frozen values that travel between processes, and the words they use.

Every `...Spec` is what a user writes: the body of a request, a table of an experiment file, the
flags of the CLI. Its
defaults are what a user gets who sets nothing; ranges are checked here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal

from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.errors import InvalidInput

# Read by the codec: unknown keys are refused.
_STRICT: dict[str, Any] = {"extra": "forbid", "allow_inf_nan": False}


def _require(where: str, ok: bool, what: str) -> None:
    if not ok:
        raise InvalidInput(where, what)


# --- datasets -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """Where a dataset lies and which file gives which role.

    format "coco": `labelled`, `unlabelled`, `scoring`, `test` are COCO JSON files below `root`,
    images below `images`.
    format "voc":  they are names of `ImageSets/Main/*.txt`; `images` is `JPEGImages`.
    `unlabelled` lists images only (annotations in it are refused: labels the service must not see).
    Without `scoring`, `scoring_share` of the labelled images is set apart once, by `seed`.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    name: str
    root: str
    format: Literal["coco", "voc"] = "coco"
    images: str = "images"
    labelled: str = "train.json"
    unlabelled: str | None = None
    scoring: str | None = None
    test: str | None = None
    scoring_share: float = 0.25
    seed: int = 0

    def __post_init__(self) -> None:
        allowed = self.name.replace("-", "").replace("_", "").replace(".", "")
        _require(
            "name",
            allowed.isascii() and allowed.isalnum() and len(self.name) <= 63,
            "use 1 to 63 letters, digits, '-', '_' or '.'",
        )
        _require("scoring_share", 0 < self.scoring_share < 1, "must lie between 0 and 1")
        _require("seed", self.seed >= 0, "must be 0 or more")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image file. `id` is `img_` and 20 hex digits of the content's SHA-256: the same file has
    the same id anywhere.
    """

    id: str
    file: str  # path relative to DatasetSpec.root
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One repaired or refused item of a dataset: which file, which record in it, what was wrong,
    what was done.
    """

    file: str
    record: str
    problem: str
    action: Literal["repaired", "refused"]


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What reading a dataset gave; `findings` holds the first hundred, the counts are complete."""

    accepted_images: int
    refused_images: int
    accepted_boxes: int
    repaired_boxes: int
    refused_boxes: int
    images_without_boxes: int
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    """A registered dataset: its images and their roles at registration (later labels stand in the
    DatasetStore).
    """

    spec: DatasetSpec
    classes: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    scoring: tuple[str, ...]
    test: tuple[str, ...]
    report: IngestReport
    created: float  # seconds since the epoch


# --- cycles ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """The task detector and its recipe; proxies share everything but `steps`.

    size: training side in pixels (images are squeezed to a square); steps: optimiser steps; batch:
    images a step.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    name: Literal["ssdlite"] = "ssdlite"
    size: int = 160
    steps: int = 200
    batch: int = 8
    learning_rate: float = 2e-3
    freeze_backbone: bool = True

    def __post_init__(self) -> None:
        _require(
            "detector.size",
            64 <= self.size <= 1024 and self.size % 32 == 0,
            "a multiple of 32 from 64 to 1024",
        )
        _require("detector.steps", self.steps >= 1, "must be 1 or more")
        _require("detector.batch", self.batch >= 2, "must be 2 or more")
        _require("detector.learning_rate", 0 < self.learning_rate < 1, "must lie between 0 and 1")


@dataclass(frozen=True, slots=True)
class TableSpec:
    """The lookup table: how many proxies, trained how, on which batches, and how the table is read.

    records         M, trained proxies
    min_records     the cycle goes on with this many when some fail for good; None: half of M, at
                    least 4
    design          batches drawn "tilted" (domain/design.py) or "uniform" (the paper)
    objective       L_U of a proxy: "isd" or "csd"
    steps           optimiser steps of a proxy
    actors          proxies trained at the same time; cpus and gpus: each one's share, fractions
                    allowed
    max_failures    retries of one proxy
    value_model     "ridge" or "idw" (inverse distance, the paper)
    distance        of "idw": "sliced" or "exact" Wasserstein
    cutoff          of "idw": records nearer than mean - 1 sd of the "query"'s or the "table"'s
                    distances count
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    records: int = 200
    min_records: int | None = None
    design: Literal["tilted", "uniform"] = "tilted"
    objective: Literal["isd", "csd"] = "isd"
    steps: int = 80
    actors: int = 2
    cpus: float = 1.0
    gpus: float = 0.0
    max_failures: int = 2
    value_model: Literal["ridge", "idw"] = "ridge"
    distance: Literal["sliced", "exact"] = "sliced"
    cutoff: Literal["query", "table"] = "query"

    def __post_init__(self) -> None:
        _require("table.records", self.records >= 4, "must be 4 or more")
        _require(
            "table.min_records",
            self.min_records is None or 4 <= self.min_records <= self.records,
            "must lie between 4 and table.records",
        )
        _require("table.steps", self.steps >= 1, "must be 1 or more")
        _require("table.actors", self.actors >= 1, "must be 1 or more")
        _require("table.cpus", self.cpus > 0, "must be above 0")
        _require("table.gpus", self.gpus >= 0, "must be 0 or more")
        _require("table.max_failures", self.max_failures >= 0, "must be 0 or more")

    @property
    def least(self) -> int:
        """Records without which the cycle fails."""
        return self.min_records if self.min_records is not None else max(4, self.records // 2)


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """The agent's training (agent/reinforce.py).

    iterations   T, policy gradient steps
    draws        K, batches drawn a step
    baseline     "rloo" (leave-one-out), "ema", "previous" (the paper's Eq. 1), "paper" (its Eq. 2
                 as printed)
    memory       lambda of "ema" and "paper"
    lane         images a lane of the walk over the pool; 0: one lane, the paper's
    temperature  tau at the first and the last iteration
    caution      beta: predictive standard deviations taken off a reward
    entropy      eta, weight of the entropy bonus
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    iterations: int = 2200
    draws: int = 16
    baseline: Literal["rloo", "ema", "previous", "paper"] = "rloo"
    memory: float = 0.5
    lane: int = 128
    learning_rate: float = 3.5e-4
    temperature: tuple[float, float] = (1.0, 0.3)
    caution: float = 0.5
    entropy: float = 1e-3

    def __post_init__(self) -> None:
        _require("agent.iterations", self.iterations >= 1, "must be 1 or more")
        _require("agent.draws", self.draws >= 1, "must be 1 or more")
        _require(
            "agent.draws",
            self.baseline != "rloo" or self.draws >= 2,
            "the leave-one-out baseline needs 2 draws: for one choose another agent.baseline",
        )
        _require("agent.memory", 0 <= self.memory < 1, "must lie in [0, 1)")
        _require("agent.lane", self.lane >= 0, "must be 0 (one lane) or more")
        _require("agent.learning_rate", 0 < self.learning_rate < 1, "must lie between 0 and 1")
        _require("agent.temperature", min(self.temperature) > 0, "both must be above 0")


@dataclass(frozen=True, slots=True)
class CycleSpec:
    """One active learning cycle: choose `budget` images of `dataset`.

    strategy         "mgral", "uniform", "entropy" (mean), "entropy_sum", "entropy_max", "coreset",
                     "entropy_coreset"
    metric           the reward: "ap50", "ap" (COCO), "voc07" (11-point), "voc12" (area), all at
                     fractions
    when_uninformed  what selects when the reward's reliability interval reaches zero
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    dataset: str
    budget: int
    seed: int = 0
    strategy: str = "mgral"
    metric: Literal["ap50", "ap", "voc07", "voc12"] = "ap50"
    when_uninformed: str = "entropy_coreset"
    detector: DetectorSpec = field(default_factory=DetectorSpec)
    table: TableSpec = field(default_factory=TableSpec)
    agent: AgentSpec = field(default_factory=AgentSpec)

    def __post_init__(self) -> None:
        _require("budget", self.budget >= 1, "must be 1 or more")
        _require("seed", 0 <= self.seed < 2**63, "must be 0 or more")
        _require(
            "when_uninformed",
            self.when_uninformed != "mgral",
            "must be a strategy that needs no reward",
        )


@dataclass(frozen=True, slots=True)
class ExperimentSpec:
    """A whole experiment without the gateway: `cycles` rounds on a dataset whose held-back labels
    an oracle reveals.

    initial: labelled images at the start, drawn by the cycle's seed from `dataset.labelled`; the
    rest is the pool.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = _STRICT
    dataset: DatasetSpec
    cycle: CycleSpec
    initial: int
    cycles: int = 1

    def __post_init__(self) -> None:
        _require("initial", self.initial >= 2, "must be 2 or more")
        _require("cycles", self.cycles >= 1, "must be 1 or more")
        _require(
            "cycle.dataset", self.cycle.dataset == self.dataset.name, "must equal dataset.name"
        )


class Status(StrEnum):
    """States of a cycle, in the order they are passed; the last three are terminal."""

    QUEUED = "QUEUED"
    FITTING = "FITTING"
    OBSERVING = "OBSERVING"
    TRAINING_PROXIES = "TRAINING_PROXIES"
    TRAINING_AGENT = "TRAINING_AGENT"
    SELECTED = "SELECTED"
    ANNOTATED = "ANNOTATED"
    EVALUATING = "EVALUATING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def order(self) -> int:
        """Position; a cycle only ever moves to a higher one."""
        return list(Status).index(self)

    @property
    def terminal(self) -> bool:
        return self.order >= Status.SUCCEEDED.order

    @property
    def has_selection(self) -> bool:
        return Status.SELECTED.order <= self.order <= Status.SUCCEEDED.order

    @property
    def driven(self) -> bool:
        """Whether a driver should be at work: not waiting for annotations, not at an end."""
        return not self.terminal and self is not Status.SELECTED

    def may_become(self, new: Status) -> bool:
        return not self.terminal and new.order > self.order


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a cycle failed: `code` is the error's class name, `detail` its words."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class CycleRecord:
    """A cycle as the store keeps it. `number` is 1 for the dataset's first cycle; `job` the last
    driver's Ray job.
    """

    id: str
    spec: CycleSpec
    status: Status
    number: int
    created: float  # seconds since the epoch
    updated: float
    job: str | None = None
    attempts: int = 0
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` in `phase` (a Status value); `figures` are numbers worth showing, such as
    the reward.
    """

    phase: str
    done: int
    total: int
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a cycle's story: `id` orders it (a Redis Stream id), `kind` such as
    "cycle.state_changed".
    """

    id: str
    kind: str
    data: Mapping[str, Any]


# --- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DesignedBatch:
    """A batch to train a proxy on, and the design that drew it ("tilted", "uniform" or a strategy's
    name).
    """

    batch: tuple[str, ...]
    design: str


@dataclass(frozen=True, slots=True)
class ProxySpec:
    """One proxy to train: on `labelled` with labels and `batch` without, everything random from
    `seed`.
    """

    index: int
    labelled: tuple[str, ...]
    batch: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class ProxyResult:
    """score: mAP on the scoring images as a fraction, or None with the first `cause` of a failure
    for good.
    """

    index: int
    score: float | None
    seconds: float
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class LookupRecord:
    """One row of the table (MGRAL, section 3.5): immutable, one per (cycle, index).

    sketch: the batch's embeddings as quantiles along fixed directions, flattened
    (domain/transport.py).
    """

    cycle: str
    index: int
    batch: tuple[str, ...]
    sketch: tuple[float, ...]
    score: float
    seed: int
    seconds: float
    design: str
    source: Literal["semi_supervised"] = "semi_supervised"


# --- what a cycle gives ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PredictedBox:
    """xyxy absolute pixels of the original image."""

    box: tuple[float, float, float, float]
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class SelectedImage:
    """An image to annotate; `boxes` are the detector's, offered as pre-labels. The best rank is 1."""

    image_id: str
    rank: int
    score: float
    reason: str
    boxes: tuple[PredictedBox, ...] = ()


@dataclass(frozen=True, slots=True)
class Selection:
    """The answer of a cycle. `strategy` is what chose in the end: the agent, or the rival that beat
    it.
    """

    cycle: str
    dataset: str
    requested: str
    strategy: str
    images: tuple[SelectedImage, ...]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Rank correlation between left-out estimates and measurements of a table's records.

    low, high: 95 % bootstrap interval of Spearman's rho; the reward is informed if low > 0.
    """

    records: int
    spearman: float
    low: float
    high: float

    @property
    def informed(self) -> bool:
        return self.low > 0


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
    """A record as the report shows it; `estimated` is the value model's answer with this record
    left out.
    """

    index: int
    design: str
    measured: float
    estimated: float
    seconds: float


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


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """How posted annotations met the selection they answer.

    matched: selected images that were annotated; unknown: posted images that were not selected or
    do not exist;
    missing: selected images not posted; refused: boxes or images that are wrong, with the reason.
    """

    matched: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    refused: tuple[Finding, ...]
    repaired: tuple[Finding, ...] = ()
    boxes: int = 0

    @property
    def complete(self) -> bool:
        return not (self.unknown or self.missing or self.refused)

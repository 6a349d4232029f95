"""Frozen values that travel between processes and into stores, and the words they use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from mgral_service.domain.specs import CycleSpec, DatasetSpec

# --- datasets -------------------------------------------------------------------------------------


MOST_FILE_BYTES = 200_000_000  # of an image; larger ones are refused unread


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


EXPERIMENT = "experiment"  # in place of a job: whoever runs the experiment drives the cycle


@dataclass(frozen=True, slots=True)
class CycleRecord:
    """A cycle as the store keeps it. `number` is 1 for the dataset's first cycle; `job` the last
    driver's Ray job, or EXPERIMENT.
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

    def tells(self, kind: str, phase: str | None) -> bool:
        """Whether it is of that kind, and of that phase if one is given."""
        return self.kind == kind and phase in {None, self.data.get("phase")}


# --- the table ------------------------------------------------------------------------------------


Source = Literal["semi_supervised", "hindsight"]
"""What a record measures: a batch without its labels (the paper), or with them."""


AGENT, FALLBACK = "agent", "fallback"
PROPOSED = AGENT, FALLBACK  # by the agent while it learned; FALLBACK: no record was near
AGAIN = "again"  # a batch measured before, from another seed


@dataclass(frozen=True, slots=True)
class DesignedBatch:
    """A batch to train a proxy on, and what drew it: "tilted", "uniform", a strategy's name,
    "ridge" or "gp", one of PROPOSED, or AGAIN.

    rotation  0: of the pool, beside all labelled images; r: of the r-th reservoir, beside its base
              (domain/hindsight.py)
    """

    batch: tuple[str, ...]
    design: str
    source: Source = "semi_supervised"
    rotation: int = 0


@dataclass(frozen=True, slots=True)
class ProxySpec:
    """One proxy to train: on `labelled` with labels and `batch` without, everything random from
    `seed`. rotation: see DesignedBatch; it names the weights to start from. scoring: which of the
    scoring images score it, all without any.
    """

    index: int
    labelled: tuple[str, ...]
    batch: tuple[str, ...]
    seed: int
    rotation: int = 0
    scoring: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProxyResult:
    """score: mAP on the scoring images as a fraction, or None with the first `cause` of a failure
    for good. interruptions: times its node was preempted and it was trained again.
    """

    index: int
    score: float | None
    seconds: float
    cause: str | None = None
    interruptions: int = 0


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
    source: Source = "semi_supervised"
    rotation: int = 0


# --- selections and their answers -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PredictedBox:
    """xyxy absolute pixels of the original image."""

    box: tuple[float, float, float, float]
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class SelectedImage:
    """An image to annotate (the best is rank 1); `boxes` are the detector's, as pre-labels."""

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

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
    """A registered dataset without its images: what a listing needs. Counts are of images, as
    registered; later labels stand in the DatasetStore.
    """

    spec: DatasetSpec
    classes: tuple[str, ...]
    labelled: int
    unlabelled: int
    scoring: int
    test: int
    report: IngestReport
    created: float  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class DatasetImages:
    """The images of a registered dataset and their roles at registration, by image id."""

    images: tuple[ImageRecord, ...]
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    scoring: tuple[str, ...] = ()
    test: tuple[str, ...] = ()


# --- cycles ---------------------------------------------------------------------------------------


class Status(StrEnum):
    """States of a cycle, in the order they are passed; the last three are terminal."""

    QUEUED = "QUEUED"
    FITTING = "FITTING"
    PREDICTING = "PREDICTING"
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
    """A cycle as the store keeps it. `number` is 1 for the dataset's first cycle; `job` is the Ray
    job of its last driver; `experiment`: the process that runs the experiment drives it, not a job.
    """

    id: str
    spec: CycleSpec
    status: Status
    number: int
    created: float  # seconds since the epoch
    updated: float
    job: str | None = None
    experiment: bool = False
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


Role = Literal["uniform", "candidate", "tilted", "pool"]
"""What a record is for. "uniform": a batch drawn uniformly, the zero of gains; "candidate": a batch
that a candidate chose; "tilted": a batch from which the value model learns; "pool": a batch of the
pool, whose labels are unknown (the paper's).
"""

AGENT = "agent"  # in `chosen_by`


@dataclass(frozen=True, slots=True)
class ProxySpec:
    """One proxy to train; everything random follows from `seed`.

    role, chosen_by  what its record is for, and who chose the batch: a strategy's name, AGENT,
                     "uniform" or "tilted"
    fold             which fold of the labelled images; None: the pool
    batch            the images whose worth it measures
    labelled         images that train with their labels: with a fold, its training part and batch
    unlabelled       images that train without labels through L_U: without a fold, the batch
    scoring          images that score it
    """

    index: int
    role: Role
    chosen_by: str
    fold: int | None
    batch: tuple[str, ...]
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    scoring: tuple[str, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class ProxyResult:
    """score: mAP on the scoring images as a fraction, or None with the first `cause` of a failure
    for good. interruptions: times its node was preempted and it was trained again.
    """

    index: int
    score: float | None
    duration_s: float
    cause: str | None = None
    interruptions: int = 0


@dataclass(frozen=True, slots=True)
class LookupRecord:
    """One row of the table (MGRAL, section 3.5): immutable, one per (cycle, index).

    role, chosen_by, fold, batch, seed: see ProxySpec; score: mAP as a fraction.
    """

    cycle: str
    index: int
    role: Role
    chosen_by: str
    fold: int | None
    batch: tuple[str, ...]
    score: float
    seed: int
    duration_s: float


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
    """The answer of a cycle. `strategy` is what chose in the end: for "mgral" the agent or another
    candidate.
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

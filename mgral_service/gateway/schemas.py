"""What the gateway answers, as pydantic models: the border of the domain's values."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mgral_service.domain.records import (
    CycleRecord,
    DatasetRecord,
    Finding,
    IngestReport,
    Problem,
    Progress,
    Reconciliation,
    SelectedImage,
    Selection,
    Status,
)
from mgral_service.domain.specs import CycleSpec, DatasetSpec


class Out(BaseModel):
    model_config = ConfigDict(frozen=True)


class ProblemOut(Out):
    """RFC 9457. `code` is stable; `errors` point at what is wrong; `detail` is for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    code: str
    errors: list[dict[str, str]] = Field(default_factory=list)
    reconciliation: dict[str, Any] | None = None


class DatasetOut(Out):
    """Images by role as they are now: annotations of cycles have moved some to `labelled`."""

    name: str
    spec: DatasetSpec
    classes: tuple[str, ...]
    labelled: int
    unlabelled: int
    scoring: int
    test: int
    report: IngestReport
    created: float = Field(description="Seconds since the epoch")

    @classmethod
    def of(cls, record: DatasetRecord, answered: int) -> DatasetOut:
        """`answered`: pool images that cycles have labelled since."""
        return cls(
            name=record.spec.name,
            spec=record.spec,
            classes=record.classes,
            labelled=len(record.labelled) + answered,
            unlabelled=len(record.unlabelled) - answered,
            scoring=len(record.scoring),
            test=len(record.test),
            report=record.report,
            created=record.created,
        )


class DatasetsOut(Out):
    datasets: list[DatasetOut]
    next_page_token: str


class CycleOut(Out):
    """`done`: no driver will work on it again. `eta_s`: seconds to the end of this phase, at its
    mean pace so far.
    """

    id: str
    spec: CycleSpec
    status: Status
    done: bool
    number: int
    attempts: int
    job: str | None
    created: float = Field(description="Seconds since the epoch")
    updated: float = Field(description="Seconds since the epoch")
    progress: Progress | None = None
    eta_s: float | None = None
    problem: Problem | None = None

    @classmethod
    def of(cls, record: CycleRecord, progress: Progress | None, now: float) -> CycleOut:
        return cls(
            id=record.id,
            spec=record.spec,
            status=record.status,
            done=record.status.terminal,
            number=record.number,
            attempts=record.attempts,
            job=record.job,
            created=record.created,
            updated=record.updated,
            progress=progress,
            eta_s=_eta_s(progress, now - record.updated),
            problem=record.problem,
        )


class CyclesOut(Out):
    """Newest first; without progress, which GET /cycles/{id} tells."""

    cycles: list[CycleOut]
    next_page_token: str


class SelectionOut(Out):
    """One page of the images to annotate, best first."""

    cycle: str
    dataset: str
    requested: str
    strategy: str
    total: int
    images: tuple[SelectedImage, ...]
    next_page_token: str

    @classmethod
    def of(cls, selection: Selection, start: int, size: int, token: str) -> SelectionOut:
        return cls(
            cycle=selection.cycle,
            dataset=selection.dataset,
            requested=selection.requested,
            strategy=selection.strategy,
            total=len(selection.images),
            images=selection.images[start : start + size],
            next_page_token=token,
        )


class CocoOut(Out):
    """A selection as COCO JSON (?format=coco), the detector's boxes as pre-labels."""

    info: dict[str, Any]
    licenses: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]


class AnswersOut(Out):
    """How posted annotations met the selection; `status` is the cycle's now."""

    cycle: str
    status: Status
    matched: tuple[str, ...]
    unknown: tuple[str, ...]
    missing: tuple[str, ...]
    refused: tuple[Finding, ...]
    repaired: tuple[Finding, ...]
    boxes: int

    @classmethod
    def of(cls, cycle: str, status: Status, found: Reconciliation) -> AnswersOut:
        return cls(
            cycle=cycle,
            status=status,
            matched=found.matched,
            unknown=found.unknown,
            missing=found.missing,
            refused=found.refused,
            repaired=found.repaired,
            boxes=found.boxes,
        )


class HealthOut(Out):
    status: str


def _eta_s(progress: Progress | None, elapsed_s: float) -> float | None:
    if progress is None or progress.done <= 0 or elapsed_s <= 0:
        return None
    left = max(progress.total - progress.done, 0)
    return round(elapsed_s / progress.done * left, 1)

"""What the gateway answers: a record of the domain and what is known of it now."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.dataclasses import dataclass

from mgral_service.domain.records import (
    CycleRecord,
    DatasetRecord,
    Progress,
    Reconciliation,
    Selection,
    Status,
)


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


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetOut(DatasetRecord):
    """Images by role as they are now: annotations of cycles have moved some to `labelled`.
    `created`: seconds since the epoch.
    """

    name: str

    @classmethod
    def of(cls, record: DatasetRecord, labelled_since: int) -> DatasetOut:
        """labelled_since: images of the pool that cycles have labelled since registration."""
        now = replace(
            record,
            labelled=record.labelled + labelled_since,
            unlabelled=record.unlabelled - labelled_since,
        )
        return cls(name=record.spec.name, **_fields(now))


class DatasetsOut(Out):
    datasets: list[DatasetOut]
    next_page_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleOut(CycleRecord):
    """`done`: no driver will work on it again. `eta_s`: seconds to the end of this phase, at its
    mean pace so far. `created`, `updated`: seconds since the epoch.
    """

    done: bool
    progress: Progress | None = None
    eta_s: float | None = None

    @classmethod
    def of(cls, record: CycleRecord, progress: Progress | None, now: float) -> CycleOut:
        return cls(
            done=record.status.terminal,
            progress=progress,
            eta_s=_eta_s(progress, now - record.updated),
            **_fields(record),
        )


class CyclesOut(Out):
    """Newest first; without progress, which GET /cycles/{id} tells."""

    cycles: list[CycleOut]
    next_page_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionOut(Selection):
    """One page of the images to annotate, best first."""

    total: int
    next_page_token: str

    @classmethod
    def of(cls, selection: Selection, start: int, size: int, token: str) -> SelectionOut:
        page = replace(selection, images=selection.images[start : start + size])
        return cls(total=len(selection.images), next_page_token=token, **_fields(page))


class CocoOut(Out):
    """A selection as COCO JSON (?format=coco), the detector's boxes as pre-labels."""

    info: dict[str, Any]
    licenses: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersOut(Reconciliation):
    """How posted annotations met the selection; `status` is the cycle's now."""

    cycle: str
    status: Status

    @classmethod
    def of(cls, record: CycleRecord, answers: Reconciliation) -> AnswersOut:
        return cls(cycle=record.id, status=record.status, **_fields(answers))


class HealthOut(Out):
    status: str


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}


def _eta_s(progress: Progress | None, elapsed_s: float) -> float | None:
    if progress is None or progress.done <= 0 or elapsed_s <= 0:
        return None
    left = max(progress.total - progress.done, 0)
    return round(elapsed_s / progress.done * left, 1)

"""The log of a cycle in memory, for cycles that run without a store."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from mgral_service.domain.boxes import PoolPredictions
from mgral_service.domain.ports import Weights
from mgral_service.domain.records import LookupRecord, Progress, Selection, Status
from mgral_service.domain.report import CycleReport


class MemoryLog:
    """cycle.context.CycleLog."""

    def __init__(self) -> None:
        self.statuses: list[Status] = []
        self.stored_predictions: dict[str, PoolPredictions] = {}
        self.stored_weights: dict[str, Weights] = {}
        self.agent: tuple[Mapping[str, Any], str] = ({}, "")
        self.selection: Selection | None = None
        self._records: dict[int, LookupRecord] = {}
        self._report: CycleReport | None = None

    def enter(self, status: Status) -> None:
        self.statuses.append(status)

    def progress(self, progress: Progress) -> None: ...

    def clock(self) -> float:
        return time.monotonic()

    def predictions(self, part: str) -> PoolPredictions | None:
        return self.stored_predictions.get(part)

    def save_predictions(self, part: str, predictions: PoolPredictions) -> None:
        self.stored_predictions[part] = predictions

    def weights(self, part: str) -> Weights | None:
        return self.stored_weights.get(part)

    def save_weights(self, part: str, weights: Weights) -> None:
        self.stored_weights[part] = weights

    def records(self) -> tuple[LookupRecord, ...]:
        return tuple(self._records[index] for index in sorted(self._records))

    def save_record(self, record: LookupRecord) -> None:
        self._records.setdefault(record.index, record)

    def report(self) -> CycleReport | None:
        return self._report

    def save_report(self, report: CycleReport) -> None:
        self._report = report

    def save_agent(self, arrays: Mapping[str, Any], winner: str) -> None:
        self.agent = arrays, winner

    def save_selection(self, selection: Selection) -> None:
        self.selection = selection

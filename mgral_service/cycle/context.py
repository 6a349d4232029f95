"""What a cycle works with, and where its steps are stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mgral_service.domain.boxes import Annotations, PoolPredictions
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import Detector, ProxyTrainer, QueryStrategy, Weights
from mgral_service.domain.records import LookupRecord, Progress, Selection, Status
from mgral_service.domain.report import CycleReport
from mgral_service.domain.specs import CycleSpec


class CycleLog(Protocol):
    """Where the steps of one cycle are stored; every call raises once its driver lost the cycle.

    part of predictions: "pool" or "fold-N"; of weights: "detector" (whose embeddings the agent
    reads), "fold-N", or "retrained" (which has the new annotations)
    """

    def enter(self, status: Status) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def clock(self) -> float:
        """Seconds, monotonic."""
        ...

    def predictions(self, part: str) -> PoolPredictions | None: ...
    def save_predictions(self, part: str, predictions: PoolPredictions) -> None: ...
    def weights(self, part: str) -> Weights | None: ...
    def save_weights(self, part: str, weights: Weights) -> None: ...
    def records(self) -> tuple[LookupRecord, ...]: ...
    def save_record(self, record: LookupRecord) -> None: ...
    def report(self) -> CycleReport | None: ...
    def save_report(self, report: CycleReport) -> None: ...
    def save_agent(self, arrays: Mapping[str, Any], winner: str) -> None: ...
    def save_selection(self, selection: Selection) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class CycleContext:
    """What the functions of `cycle` read.

    annotations    of the labelled, scoring and test images
    fold_detector  of the task detector's kind; it may train on kept features
    strategy       by name
    """

    id: str
    spec: CycleSpec
    split: PoolSplit
    classes: tuple[str, ...]
    annotations: Annotations
    detector: Detector
    fold_detector: Detector
    proxies: ProxyTrainer
    strategy: Callable[[str], QueryStrategy]

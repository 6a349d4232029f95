"""The sockets of the house: what the middle needs from detectors, clusters and stores.

Each has one exam in `tests/contract/`, which every adapter sits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np

from mgral_service.domain.arrays import BoolArray, FloatArray, IntArray
from mgral_service.domain.boxes import Annotations, Detections, PoolPredictions
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.records import (
    CycleRecord,
    DatasetImages,
    DatasetRecord,
    Event,
    LookupRecord,
    Progress,
    ProxyResult,
    ProxySpec,
    Selection,
)
from mgral_service.domain.report import Choice
from mgral_service.domain.specs import CycleSpec
from mgral_service.domain.value.lookup import LookupTable

Report = Callable[[Progress], None]
"""Takes progress; may raise (a lost lease, a cancelled cycle) to stop the work that reports."""

Measure = Callable[[Mapping[int, tuple[str, ...]]], LookupTable]
"""Train a proxy on the agent's batch of each fold {fold: image ids}; the table with their records.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """All that a strategy may look at.

    pool     the labelled and the unlabelled images
    folds    of the labelled images, where candidates are measured; empty for strategies without a
             table, for the paper's method, and where too few images are labelled
    table    trained proxies, for strategies that need "table"
    measure  trains the agent's own batches in the folds
    """

    spec: CycleSpec
    pool: CandidatePool
    folds: tuple[CandidatePool, ...] = ()
    table: LookupTable | None = None
    measure: Measure | None = None


class QueryStrategy(Protocol):
    """Chooses; see the files of `strategies/`."""

    name: str
    needs: frozenset[str]  # columns of the predictions; "table" for a table of trained proxies

    def plan(self, query: Query) -> Sequence[ProxySpec]:
        """The proxies to train before `select`; none for strategies that need no table."""
        ...

    def select(self, query: Query, rng: np.random.Generator, report: Report) -> Choice:
        """Exactly min(budget, U) distinct ids of the candidates; same query and rng state, same
        answer.
        """
        ...


Weights = Mapping[str, np.ndarray[Any, Any]]
"""A detector's, by name."""


NOTHING: Mapping[int | None, Weights] = MappingProxyType({})


class ProxyTrainer(Protocol):
    def train(
        self, specs: Sequence[ProxySpec], starts: Mapping[int | None, Weights] = NOTHING
    ) -> Iterator[ProxyResult]:
        """Results in the order of completion; a proxy that fails for good gives a result without
        score.

        starts: weights that the proxies of a fold start from; others from the initial ones
        """
        ...


class Detector(Protocol):
    def fit(self, train: Annotations, report: Report) -> None:
        """Train from the initial weights on these images; the same seed gives the same weights."""
        ...

    def predict(self, ids: Sequence[str], report: Report) -> PoolPredictions: ...

    def score(self, truth: Annotations) -> float:
        """mAP of the fitted detector on these images, a fraction."""
        ...

    def state(self) -> Weights:
        """A copy, for a checkpoint."""
        ...


class RewardMetric(Protocol):
    def __call__(self, detections: Detections, annotations: Annotations) -> float:
        """mAP in [0, 1]; both cover the same ids."""
        ...


class ValueModel(Protocol):
    """Estimates what a batch gains, from the table's records (domain/value/)."""

    def fit(self, table: LookupTable) -> None:
        """InvalidInput for a table of fewer than two records."""
        ...

    def estimate(
        self, pool: CandidatePool, batches: Sequence[IntArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Gain over a uniform batch of `pool`, mean [K] and standard deviation [K], as fractions of
        mAP; a batch is positions in the pool.
        """
        ...

    def out_of_support(self, pool: CandidatePool, batches: Sequence[IntArray]) -> BoolArray:
        """[K] where no record is near enough to tell a batch's gain: the estimate is 0 there."""
        ...

    def held_out(self) -> FloatArray:
        """[M] each record's gain, estimated without the records of its fold (without the record
        itself, where there is no fold).
        """
        ...


class Oracle(Protocol):
    def annotate(self, ids: Sequence[str]) -> Annotations: ...


class LookupStore(Protocol):
    def put(self, record: LookupRecord, lease: int) -> bool:
        """Keep a record; False if (cycle, index) has one already (that one stays). StaleLease for a
        lost lease.
        """
        ...

    def records(self, cycle: str) -> tuple[LookupRecord, ...]:
        """All of a cycle, by index."""
        ...

    def count(self, cycle: str) -> int: ...


class CycleStore(Protocol):
    def create(self, record: CycleRecord, key: str | None, fingerprint: str) -> CycleRecord:
        """Store a new record, or return the one that this Idempotency-Key made: one atomic step.

        The store sets `number`. IdempotencyMismatch if the key was used with another fingerprint.
        """
        ...

    def claimed(self, key: str, fingerprint: str) -> CycleRecord | None:
        """What an Idempotency-Key made; IdempotencyMismatch as above."""
        ...

    def get(self, cycle: str) -> CycleRecord:
        """NotFound if there is none; Unreadable if it is damaged."""
        ...

    def put(self, record: CycleRecord, lease: int | None) -> None:
        """Replace. IllegalTransition unless the status stays or moves forward; StaleLease for a
        lost lease.

        Without lease (the gateway): cancelling and taking annotations, guarded by the transition
        alone.
        """
        ...

    def page(self, after: str | None, limit: int) -> tuple[CycleRecord, ...]:
        """Newest first, those created before the cycle `after`; what is unreadable is left out."""
        ...

    def acquire(self, cycle: str, owner: str, ttl_s: float) -> int:
        """Take the lease: a fencing token above all before it. LeaseHeld while another holds it."""
        ...

    def renew(self, cycle: str, lease: int, ttl_s: float) -> None:
        """StaleLease if it was taken over or has expired and been taken."""
        ...

    def release(self, cycle: str, lease: int) -> None: ...

    def holder(self, cycle: str) -> str | None:
        """The owner of a live lease."""
        ...

    def put_attachment(self, cycle: str, name: str, text: str, lease: int | None) -> None:
        """Attach JSON text ("selection", "report", ...) to a cycle; StaleLease for a lost lease."""
        ...

    def attachment(self, cycle: str, name: str) -> str | None: ...


class EventLog(Protocol):
    def append(self, cycle: str, kind: str, data: Mapping[str, Any]) -> str: ...

    def read(self, cycle: str, after: str, limit: int) -> tuple[Event, ...]:
        """Events after that id, oldest first; "0" reads from the start. Returns at once."""
        ...

    def last(self, cycle: str, kind: str, phase: str | None = None) -> Event | None:
        """The newest event of that kind, and of that phase if one is given, among the last
        hundred.
        """
        ...


class DatasetStore(Protocol):
    def add(self, record: DatasetRecord, images: DatasetImages) -> DatasetRecord:
        """The stored record: this one, or the equal one before it (by spec). AlreadyExists for
        another spec.
        """
        ...

    def get(self, name: str) -> DatasetRecord:
        """NotFound if there is none; Unreadable if it is damaged."""
        ...

    def images(self, name: str) -> DatasetImages:
        """The images and their roles at registration; NotFound, Unreadable as above."""
        ...

    def page(self, after: str | None, limit: int) -> tuple[DatasetRecord, ...]:
        """By name; what is unreadable is left out."""
        ...

    def labelled_since(self, name: str) -> int:
        """Images that cycles have labelled since registration, without reading their boxes."""
        ...

    def add_labels(self, name: str, cycle: str, labels: Annotations) -> None:
        """Keep the annotations that a cycle brought; the same cycle again replaces them."""
        ...

    def labels(self, name: str) -> tuple[tuple[str, Annotations], ...]:
        """(cycle id, its annotations) in the order the cycles were added."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Stores:
    """The four record stores of one place; they share its leases."""

    cycles: CycleStore
    table: LookupStore
    events: EventLog
    datasets: DatasetStore


class ArtifactStore(Protocol):
    """Arrays too large for the record store, by cycle and name; written whole or not at all."""

    def put(
        self,
        cycle: str,
        name: str,
        arrays: Mapping[str, np.ndarray[Any, Any]],
        metadata: Mapping[str, str],
    ) -> None: ...

    def get(
        self, cycle: str, name: str
    ) -> tuple[Mapping[str, np.ndarray[Any, Any]], Mapping[str, str]] | None:
        """None if there is none, or if it is damaged (its digest does not match)."""
        ...


class CycleLauncher(Protocol):
    def launch(self, cycle: str, attempt: int) -> str:
        """Start a driver for the cycle; returns its job id. The same attempt twice starts one."""
        ...

    def cancel(self, job: str) -> None:
        """Stop a driver; nothing happens if it has ended."""
        ...

    def alive(self, job: str) -> bool: ...


class Selector(Protocol):
    def top(self, cycle: str, budget: int | None) -> Selection:
        """The stored selection, or with a budget the images the cycle's winner ranks best for that
        many.
        """
        ...

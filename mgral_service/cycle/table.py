"""Filling the table of a cycle: its folds, their predictions, and the proxies that are missing.

Re-entrant: the plan follows from the cycle's seed and the predictions, a record is stored the
moment it exists, and a restarted driver trains the difference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from mgral_service.cycle.context import CycleContext, CycleLog
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.errors import TooFewRecords, Unreadable
from mgral_service.domain.folds import Fold, make_folds
from mgral_service.domain.ports import Weights
from mgral_service.domain.records import (
    AGENT,
    LookupRecord,
    Progress,
    ProxySpec,
    Status,
)
from mgral_service.domain.report import Note
from mgral_service.domain.seeds import Purpose, stream
from mgral_service.domain.value.lookup import LookupTable


def folds_of(context: CycleContext) -> tuple[Fold, ...]:
    """Of the labelled images; none with the paper's method, or with too few of them."""
    spec, split = context.spec, context.split
    if spec.method == "paper":
        return ()
    cycle_number = max(split.labelled.values(), default=0)
    rng = stream(spec.seed, Purpose.DIVISION, cycle_number)
    return make_folds(split, spec.table.folds, spec.budget, rng)


def fold_pool(context: CycleContext, cycle_log: CycleLog, fold: Fold) -> CandidatePool:
    """The fold through a detector of its training part, which is fitted unless its predictions and
    weights are stored.
    """
    part = f"fold-{fold.number}"
    predictions = cycle_log.predictions(part)
    if predictions is None or cycle_log.weights(part) is None:
        detector = context.fold_detector
        detector.fit(context.annotations.subset(fold.training), cycle_log.progress)
        predictions = detector.predict((*fold.training, *fold.candidates), cycle_log.progress)
        cycle_log.save_weights(part, detector.state())
        cycle_log.save_predictions(part, predictions)
    return CandidatePool(
        predictions,
        fold.training,
        fold.candidates,
        context.classes,
        fold.batch_size,
        fold.number,
        fold.scoring,
    )


@dataclass
class TableServices:
    """Trains what is missing of a plan, and keeps the cycle's records.

    failed       causes, in order
    interrupted  proxies that lost a preempted node
    trained      proxies trained by this process
    """

    context: CycleContext
    cycle_log: CycleLog
    pool: CandidatePool
    folds: tuple[CandidatePool, ...]
    failed: list[str] = field(default_factory=list)
    interrupted: int = 0
    trained: int = 0
    _plan: list[ProxySpec] = field(default_factory=list)

    def fill(self, plan: Sequence[ProxySpec]) -> LookupTable:
        """The table of the plan's records. TooFewRecords if too many proxies fail for good."""
        self._train(plan)
        table = self.table()
        least = self.context.spec.table.least
        if len(table) < least:
            raise TooFewRecords(len(table), least, self.failed[0] if self.failed else "none")
        return table

    def measure(self, batches: Mapping[int, tuple[str, ...]]) -> LookupTable:
        """ports.Measure: the table with a record of the agent's batch in each fold."""
        first = len(self._plan)
        self._train(
            [
                self._agent_proxy(fold, batches[fold.fold], first + row)
                for row, fold in enumerate(self.folds)
                if fold.fold is not None and fold.fold in batches
            ]
        )
        return self.table()

    def _agent_proxy(self, fold: CandidatePool, batch: tuple[str, ...], index: int) -> ProxySpec:
        """As the fold's other proxies, with the agent's batch."""
        sibling = next(spec for spec in self._plan if spec.fold == fold.fold)
        return replace(
            sibling,
            index=index,
            role="candidate",
            chosen_by=AGENT,
            batch=batch,
            labelled=(*fold.names(fold.labelled), *batch),
        )

    def table(self) -> LookupTable:
        """Of the planned proxies that have a record. Unreadable for a record of another batch than
        was planned: another version of this service designed it.
        """
        planned = {spec.index: spec for spec in self._plan}
        records = [record for record in self.cycle_log.records() if record.index in planned]
        for record in records:
            spec = planned[record.index]
            if (record.fold, record.batch) != (spec.fold, spec.batch):
                raise Unreadable(
                    "table of cycle",
                    self.context.id,
                    f"record {record.index} is of other images than this version would take",
                )
        return LookupTable.of(records, self.folds or (self.pool,))

    def notes(self) -> tuple[Note, ...]:
        """What went wrong."""
        notes = []
        if self.failed:
            records = len(self.cycle_log.records())
            notes.append(
                Note(
                    "proxies.failed",
                    f"{_proxies(len(self.failed))} failed, {records} records are left. First "
                    f"cause: {self.failed[0]}.",
                    {"failed": len(self.failed), "records": records},
                )
            )
        if self.interrupted:
            text = f"{_proxies(self.interrupted)} lost a preempted node and started over."
            notes.append(Note("proxies.interrupted", text, {"interrupted": self.interrupted}))
        return tuple(notes)

    def _train(self, plan: Sequence[ProxySpec]) -> None:
        """Those that have no record yet."""
        self._plan += plan
        stored = {record.index for record in self.cycle_log.records()}
        missing = {spec.index: spec for spec in plan if spec.index not in stored}
        if not missing:
            return
        total, done = self.context.spec.table.records, len(stored)
        self.cycle_log.progress(Progress(Status.TRAINING_PROXIES, done, total))
        for result in self.context.proxies.train([*missing.values()], self._starts(missing)):
            self.trained += 1
            self.interrupted += result.interruptions > 0
            figures: Mapping[str, float] = {}
            if result.score is None or not math.isfinite(result.score):
                self.failed.append(f"proxy {result.index}: {result.cause or 'non-finite score'}")
            else:
                spec = missing[result.index]
                self.cycle_log.save_record(
                    LookupRecord(
                        cycle=self.context.id,
                        index=spec.index,
                        role=spec.role,
                        chosen_by=spec.chosen_by,
                        fold=spec.fold,
                        batch=spec.batch,
                        score=result.score,
                        seed=spec.seed,
                        duration_s=result.duration_s,
                    )
                )
                done, figures = done + 1, {"score": result.score}
            progress = Progress(Status.TRAINING_PROXIES, done, max(total, done), figures)
            self.cycle_log.progress(progress)

    def _starts(self, missing: Mapping[int, ProxySpec]) -> Mapping[int | None, Weights]:
        """The weights of a detector that has learned from the training part of each fold."""
        if self.context.spec.table.advanced.start == "initial":
            return {}
        starts: dict[int | None, Weights] = {}
        for fold in {spec.fold for spec in missing.values()}:
            weights = self.cycle_log.weights("detector" if fold is None else f"fold-{fold}")
            if weights is not None:
                starts[fold] = weights
        return starts


def _proxies(count: int) -> str:
    return f"{count} proxy" if count == 1 else f"{count} proxies"

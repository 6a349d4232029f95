"""One active learning cycle as a function over ports: fit, observe, fill the table, learn, select.

Re-entrant: every finished step stands in the journal, so a driver that starts where another died
does only what is missing. Everything random comes from `spec.seed` and a purpose, never a clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Protocol

import numpy as np

from mgral_service.domain import design, transport
from mgral_service.domain.arrays import IntArray
from mgral_service.domain.boxes import Annotations, PoolObservation
from mgral_service.domain.errors import InvalidInput, TooFewRecords
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import Detector, ProxyTrainer, Query, QueryStrategy, Weights
from mgral_service.domain.records import (
    Choice,
    CycleReport,
    DesignedBatch,
    LookupRecord,
    PhaseTime,
    PredictedBox,
    Progress,
    ProxySpec,
    SelectedImage,
    Selection,
    Status,
)
from mgral_service.domain.specs import CycleSpec, TableSpec

PRELABEL_SCORE = 0.3  # boxes below it are not offered to annotators
PRELABELS = 20  # an image


class Purpose(IntEnum):
    """What a stream of random numbers is for: one seed, no stream used twice."""

    CLASSICAL = 1
    DESIGN = 2
    PROXY = 3
    SELECT = 4
    DETECTOR = 5
    INITIAL = 6


def stream(seed: int, purpose: Purpose) -> np.random.Generator:
    return np.random.default_rng([seed, purpose])


def seed_of(seed: int, purpose: Purpose) -> int:
    """A seed in [0, 2**31) for libraries that take one number."""
    return int(stream(seed, purpose).integers(2**31))


class Journal(Protocol):
    """Where the steps of one cycle are kept; every call raises once its driver lost the cycle."""

    def enter(self, status: Status) -> None: ...
    def progress(self, progress: Progress) -> None: ...
    def clock(self) -> float:
        """Seconds, monotonic."""
        ...

    def observation(self) -> PoolObservation | None: ...
    def keep_observation(self, observation: PoolObservation) -> None: ...
    def records(self) -> tuple[LookupRecord, ...]: ...
    def keep_record(self, record: LookupRecord) -> None: ...
    def report(self) -> CycleReport | None: ...
    def keep_report(self, report: CycleReport) -> None: ...
    def keep_agent(self, arrays: Mapping[str, Any], winner: str) -> None: ...
    def keep_selection(self, selection: Selection) -> None: ...
    def detector(self) -> Weights | None: ...
    def keep_detector(self, weights: Weights) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Workbench:
    """What a cycle works with. `annotations` cover the labelled, scoring and test images."""

    cycle: str
    spec: CycleSpec
    split: PoolSplit
    classes: tuple[str, ...]
    annotations: Annotations
    detector: Detector
    proxies: ProxyTrainer
    strategy: Callable[[str], QueryStrategy]


def run(bench: Workbench, journal: Journal) -> Selection:
    """From a queued cycle to a selection. Raises TooFewRecords, or what a port raises."""
    report = replace(journal.report() or _blank_report(bench), words=())
    observation = journal.observation()
    if observation is None:
        report = _fit(bench, journal, report)
        observation, report = _observe(bench, journal, report)
    strategy = bench.strategy(bench.spec.strategy)
    query = Query(bench.spec, bench.split, observation, bench.classes)
    if "table" in strategy.needs:
        table, report = _fill_table(bench, query, journal, report)
        query = replace(query, table=table)
    journal.enter(Status.TRAINING_AGENT)
    with _timed(journal) as elapsed:
        choice = strategy.select(query, stream(bench.spec.seed, Purpose.SELECT), journal.progress)
    made = f"{len(choice.ids)} images, chosen by {choice.strategy}"
    report = _after(report, Status.TRAINING_AGENT, elapsed(), made)
    words = choice.evidence.words if choice.evidence else (f"{choice.strategy} chose.",)
    words = (*report.words, *words)
    journal.keep_report(replace(report, evidence=choice.evidence, words=words))
    journal.keep_agent(choice.agent, choice.strategy)
    selection = selection_of(bench.cycle, bench.spec, choice, observation, bench.classes)
    journal.keep_selection(selection)
    journal.enter(Status.SELECTED)
    return selection


def evaluate(bench: Workbench, answers: Annotations, journal: Journal) -> CycleReport:
    """Retrain the detector with the new annotations and score it where the old one was scored."""
    journal.enter(Status.EVALUATING)
    report = journal.report() or _blank_report(bench)
    train = Annotations.concat([bench.annotations.subset(bench.split.labelled), answers])
    with _timed(journal) as elapsed:
        bench.detector.fit(train, journal.progress)
        scoring = bench.detector.score(bench.annotations.subset(bench.split.scoring))
        test = _test_score(bench)
    report = replace(
        _after(report, Status.EVALUATING, elapsed(), f"detector from {len(train)} labelled images"),
        scoring_after=scoring,
        test_after=test,
    )
    journal.keep_detector(bench.detector.state())
    journal.keep_report(report)
    journal.enter(Status.SUCCEEDED)
    return report


def selection_of(
    cycle: str,
    spec: CycleSpec,
    choice: Choice,
    observation: PoolObservation,
    classes: Sequence[str],
) -> Selection:
    """The choice with the detector's boxes as pre-labels."""
    found = observation.detections.subset(choice.ids)
    boxes: list[list[PredictedBox]] = [[] for _ in choice.ids]
    for row in np.argsort(-found.scores, kind="stable"):
        at = int(found.image[row])
        if found.scores[row] >= PRELABEL_SCORE and len(boxes[at]) < PRELABELS:
            x0, y0, x1, y1 = (round(float(value), 2) for value in found.boxes[row])
            label = classes[int(found.labels[row])]
            boxes[at].append(PredictedBox((x0, y0, x1, y1), label, float(found.scores[row])))
    images = tuple(
        SelectedImage(name, at + 1, float(choice.scores[at]), choice.reasons[at], tuple(boxes[at]))
        for at, name in enumerate(choice.ids)
    )
    return Selection(cycle, spec.dataset, spec.strategy, choice.strategy, images)


# --- steps --------------------------------------------------------------------------------------


def _fit(bench: Workbench, journal: Journal, report: CycleReport) -> CycleReport:
    journal.enter(Status.FITTING)
    with _timed(journal) as elapsed:
        bench.detector.fit(bench.annotations.subset(bench.split.labelled), journal.progress)
        scoring = bench.detector.score(bench.annotations.subset(bench.split.scoring))
        test = _test_score(bench)
    journal.keep_detector(bench.detector.state())
    made = f"detector from {len(bench.split.labelled)} labelled images"
    report = _after(report, Status.FITTING, elapsed(), made)
    return replace(report, scoring_before=scoring, test_before=test)


def _observe(
    bench: Workbench, journal: Journal, report: CycleReport
) -> tuple[PoolObservation, CycleReport]:
    journal.enter(Status.OBSERVING)
    with _timed(journal) as elapsed:
        ids = (*bench.split.labelled, *bench.split.unlabelled)
        observation = bench.detector.observe(ids, journal.progress)
    made = f"embeddings and {len(observation.detections.scores)} boxes of {len(ids)} images"
    report = _after(report, Status.OBSERVING, elapsed(), made)
    journal.keep_report(report)
    journal.keep_observation(observation)
    return observation, report


def _fill_table(
    bench: Workbench, query: Query, journal: Journal, report: CycleReport
) -> tuple[LookupTable, CycleReport]:
    """Train the proxies whose records are missing; each record is kept the moment it exists."""
    journal.enter(Status.TRAINING_PROXIES)
    spec = bench.spec
    batches = _design(bench, query)
    points = transport.standardise(query.observation.embeddings)
    position = {name: at for at, name in enumerate(query.observation.ids)}
    have = {record.index for record in journal.records()}
    seed = seed_of(spec.seed, Purpose.PROXY)
    start = None if spec.table.start == "initial" else _fitted(bench, journal)
    todo = [
        ProxySpec(
            index,
            tuple(bench.split.labelled),
            one.batch,
            seed if spec.table.common_draws else (seed + index * spec.table.repeats) % 2**31,
        )
        for index, one in enumerate(batches)
        if index not in have
    ]
    seeds = {one.index: one.seed for one in todo}
    failed: list[str] = []
    done, interrupted = len(have), 0
    with _timed(journal) as elapsed:
        journal.progress(Progress(Status.TRAINING_PROXIES, done, len(batches)))
        for result in bench.proxies.train(todo, start):
            interrupted += result.interruptions > 0
            if result.score is None or not math.isfinite(result.score):
                failed.append(f"proxy {result.index}: {result.cause or 'non-finite score'}")
            else:
                one = batches[result.index]
                rows = np.array([position[name] for name in one.batch], dtype=np.int64)
                journal.keep_record(
                    LookupRecord(
                        bench.cycle,
                        result.index,
                        one.batch,
                        tuple(transport.batch_sketch(points, rows).tolist()),
                        result.score,
                        seeds[result.index],
                        result.seconds,
                        one.design,
                    )
                )
                done += 1
            figures = {} if result.score is None else {"score": result.score}
            journal.progress(Progress(Status.TRAINING_PROXIES, done, len(batches), figures))
    records = journal.records()
    made = f"{len(records)} records of {len(batches)}, {len(todo)} proxies trained by this driver"
    report = replace(
        _after(report, Status.TRAINING_PROXIES, elapsed(), made),
        failed_proxies=tuple(failed),
        words=table_words(len(records), spec.table, failed, interrupted),
    )
    journal.keep_report(report)
    if len(records) < spec.table.least:
        raise TooFewRecords(len(records), spec.table.least, failed[0] if failed else "none")
    return LookupTable.of(records, query.observation.ids), report


def table_words(
    records: int, table: TableSpec, failed: Sequence[str], interrupted: int
) -> tuple[str, ...]:
    """What went wrong while the table was filled, in sentences; `failed` are causes in order."""
    words = []
    if failed:
        words.append(
            f"The table has {records} of {table.records} records: {_proxies(len(failed))} failed "
            f"(first cause: {failed[0]}); the minimum is {table.least}."
        )
    if interrupted:
        words.append(f"{_proxies(interrupted)} lost a preempted node and started over.")
    return tuple(words)


def _proxies(count: int) -> str:
    return f"{count} proxy" if count == 1 else f"{count} proxies"


def _fitted(bench: Workbench, journal: Journal) -> Weights:
    """The task detector's weights; if they are damaged or lost, it is fitted again."""
    kept = journal.detector()
    if kept is None:
        bench.detector.fit(bench.annotations.subset(bench.split.labelled), journal.progress)
        kept = bench.detector.state()
        journal.keep_detector(kept)
    return kept


def _design(bench: Workbench, query: Query) -> tuple[DesignedBatch, ...]:
    """The M batches of the table: the same for the same spec, split and observation."""
    spec, split = bench.spec, bench.split
    classical: dict[str, IntArray] = {}
    position = {name: at for at, name in enumerate(query.observation.ids)}
    for name in design.CHEAP:
        chosen = bench.strategy(name).select(
            query, stream(spec.seed, Purpose.CLASSICAL), lambda progress: None
        )
        classical[name] = np.array([position[one] for one in chosen.ids], dtype=np.int64)
    return design.draw(
        spec.table.design,
        spec.table.records,
        spec.budget,
        query.observation,
        np.array([position[name] for name in split.labelled], dtype=np.int64),
        np.array([position[name] for name in split.unlabelled], dtype=np.int64),
        classical,
        stream(spec.seed, Purpose.DESIGN),
    )


def _test_score(bench: Workbench) -> float | None:
    if not bench.split.test:
        return None
    return bench.detector.score(bench.annotations.subset(bench.split.test))


def _blank_report(bench: Workbench) -> CycleReport:
    split = bench.split
    if not split.unlabelled:
        raise InvalidInput("dataset", "has no unlabelled images left to choose from")
    return CycleReport(
        bench.cycle,
        bench.spec,
        len(split.labelled),
        len(split.unlabelled),
        len(split.scoring),
        len(split.test),
        (),
    )


def _after(report: CycleReport, phase: Status, seconds: float, made: str) -> CycleReport:
    """The report with a phase added; a phase that ran before a restart keeps its time as well."""
    return replace(report, phases=(*report.phases, PhaseTime(phase, round(seconds, 3), made)))


@contextmanager
def _timed(journal: Journal) -> Iterator[Callable[[], float]]:
    start = journal.clock()
    yield lambda: journal.clock() - start

"""One active learning cycle as a function over ports: fit, observe, fill the table, learn, select.

Re-entrant: every finished step stands in the journal, so a driver that starts where another died
does only what is missing. Everything random comes from `spec.seed` and a purpose, never a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from mgral_service.domain.boxes import Annotations, Detections, PoolObservation
from mgral_service.domain.errors import InvalidInput, TooFewRecords
from mgral_service.domain.evidence import Choice, CycleReport, PhaseTime, TablePoint
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import Detector, ProxyTrainer, Query, QueryStrategy, Weights
from mgral_service.domain.records import (
    LookupRecord,
    PredictedBox,
    Progress,
    SelectedImage,
    Selection,
    Status,
)
from mgral_service.domain.seeds import Purpose, stream
from mgral_service.domain.specs import CycleSpec
from mgral_service.table import Filling, out_of_fold

PRELABEL_SCORE = 0.3  # boxes below it are not offered to annotators
PRELABELS = 20  # an image


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
    def keep_detector(self, weights: Weights) -> None:
        """The one whose embeddings the agent knows."""
        ...

    def keep_retrained(self, weights: Weights) -> None:
        """The one that has the new annotations."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Workbench:
    """What a cycle works with. `annotations` cover the labelled, scoring and test images; earlier:
    see `ports.Query`.
    """

    cycle: str
    spec: CycleSpec
    split: PoolSplit
    classes: tuple[str, ...]
    annotations: Annotations
    detector: Detector
    proxies: ProxyTrainer
    strategy: Callable[[str], QueryStrategy]
    earlier: tuple[tuple[TablePoint, ...], ...] = ()


def run(bench: Workbench, journal: Journal) -> Selection:
    """From a queued cycle to a selection. Raises TooFewRecords, or what a port raises."""
    report = journal.report() or _blank_report(bench)
    strategy, crew = bench.strategy(bench.spec.strategy), _Crew(bench, journal)
    observation = journal.observation()
    if observation is None:
        report = _fit(bench, journal, report)
        folds = crew if "table" in strategy.needs else None
        observation, report = _observe(bench, folds, journal, report)
    query = Query(bench.spec, bench.split, observation, bench.classes, earlier=bench.earlier)
    filling = None
    if "table" in strategy.needs:
        filling = Filling(bench.cycle, query, crew, journal)
        table, report = _fill_table(bench, filling, journal, report)
        query = replace(query, table=table, online=filling)
    journal.enter(Status.TRAINING_AGENT)
    with _timed(journal) as elapsed:
        choice = strategy.select(query, stream(bench.spec.seed, Purpose.SELECT), journal.progress)
    made = f"{len(choice.ids)} images, chosen by {choice.strategy}"
    report = _after(report, Status.TRAINING_AGENT, elapsed(), made)
    words = choice.evidence.words if choice.evidence else (f"{choice.strategy} chose.",)
    if filling is not None:
        report = replace(report, failed_proxies=tuple(filling.failed))
        words = (*filling.words(len(journal.records())), *words)
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
    journal.keep_retrained(bench.detector.state())
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
    bench: Workbench, folds: _Crew | None, journal: Journal, report: CycleReport
) -> tuple[PoolObservation, CycleReport]:
    """folds: where a table follows, whose hindsight asks for the scoring images too, or for
    detections out of fold.
    """
    journal.enter(Status.OBSERVING)
    split = bench.split
    with _timed(journal) as elapsed:
        ids = (*split.labelled, *split.unlabelled)
        if folds is not None and bench.spec.table.draws_from_scoring(len(split.scoring)):
            ids = (*ids, *split.scoring)
        observation = bench.detector.observe(ids, journal.progress)
        if folds is not None:
            observation = out_of_fold(bench.spec, split, observation, folds)
    made = f"embeddings and {len(observation.detections.scores)} boxes of {len(ids)} images"
    report = _after(report, Status.OBSERVING, elapsed(), made)
    journal.keep_report(report)
    journal.keep_observation(observation)
    return observation, report


@dataclass(frozen=True, slots=True, eq=False)
class _Crew:
    """table.Crew of a workbench. states: of detectors fitted here, by their images."""

    bench: Workbench
    journal: Journal
    states: dict[frozenset[str], Weights] = field(default_factory=dict)

    @property
    def proxies(self) -> ProxyTrainer:
        return self.bench.proxies

    def strategy(self, name: str) -> QueryStrategy:
        return self.bench.strategy(name)

    def weights(self, base: Sequence[str]) -> Weights:
        """Those of the task detector are kept; if they are damaged or lost, it is fitted again."""
        whole = set(base) == set(self.bench.split.labelled)
        kept = self.journal.detector() if whole else self.states.get(frozenset(base))
        if kept is None:
            kept = self._fit(base)
            if whole:
                self.journal.keep_detector(kept)
        return kept

    def detections(self, base: Sequence[str], ids: Sequence[str]) -> Detections:
        self._fit(base)
        return self.bench.detector.observe(ids, self.journal.progress).detections

    def _fit(self, base: Sequence[str]) -> Weights:
        detector = self.bench.detector
        detector.fit(self.bench.annotations.subset(base), self.journal.progress)
        self.states[frozenset(base)] = detector.state()
        return self.states[frozenset(base)]


def _fill_table(
    bench: Workbench, filling: Filling, journal: Journal, report: CycleReport
) -> tuple[LookupTable, CycleReport]:
    journal.enter(Status.TRAINING_PROXIES)
    try:
        with _timed(journal) as elapsed:
            table = filling.fill()
    except TooFewRecords as error:
        words = filling.words(error.got, bench.spec.table.records)
        journal.keep_report(replace(report, failed_proxies=tuple(filling.failed), words=words))
        raise
    wanted = bench.spec.table.designed
    made = f"{len(table)} records of {wanted}, {filling.trained} proxies trained by this driver"
    report = _after(report, Status.TRAINING_PROXIES, elapsed(), made)
    return table, report


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

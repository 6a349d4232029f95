"""One active learning cycle as a function over ports: fit, predict, fill the table, learn, select;
and once the annotations are back, evaluate.

Re-entrant: every finished step is stored in the cycle's log, so a driver that starts where another
died does only what is missing. Everything random comes from `spec.seed` and a purpose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from mgral_service.cycle.context import CycleContext, CycleLog
from mgral_service.cycle.table import TableServices, fold_pool, folds_of
from mgral_service.domain.boxes import Annotations, PoolPredictions
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.errors import InvalidInput, TooFewRecords
from mgral_service.domain.ports import Query
from mgral_service.domain.records import PredictedBox, SelectedImage, Selection, Status
from mgral_service.domain.report import Choice, CycleReport, Note, PhaseTime
from mgral_service.domain.seeds import Purpose, stream
from mgral_service.domain.specs import CycleSpec

PRELABEL_SCORE = 0.3  # boxes below it are not offered to annotators
PRELABELS = 20  # an image


def run(context: CycleContext, cycle_log: CycleLog) -> Selection:
    """From a queued cycle to a selection. Raises TooFewRecords, or what a port raises."""
    spec, split = context.spec, context.split
    report = cycle_log.report() or _blank_report(context)
    strategy = context.strategy(spec.strategy)
    predictions, report = _fit_and_predict(context, cycle_log, report)
    pool = CandidatePool(
        predictions,
        split.labelled,
        split.unlabelled,
        context.classes,
        spec.budget,
        scoring=split.scoring,
    )
    query = Query(spec, pool)
    notes: tuple[Note, ...] = ()
    services: TableServices | None = None
    if "table" in strategy.needs:
        query, services, report = _fill_table(context, cycle_log, query, report)
    cycle_log.enter(Status.TRAINING_AGENT)
    with _timed(cycle_log) as elapsed:
        choice = strategy.select(query, stream(spec.seed, Purpose.SELECT), cycle_log.progress)
    made = f"{len(choice.ids)} images, chosen by {choice.strategy}"
    report = _after(report, Status.TRAINING_AGENT, elapsed(), made)
    if services is not None:
        notes = services.notes()
        report = replace(report, failed_proxies=tuple(services.failed))
    notes = (*notes, *(choice.notes or _plain_notes(choice)))
    cycle_log.save_report(replace(report, table=choice.table, notes=notes))
    cycle_log.save_agent(choice.agent, choice.strategy)
    selection = selection_of(context.id, spec, choice, predictions, context.classes)
    cycle_log.save_selection(selection)
    cycle_log.enter(Status.SELECTED)
    return selection


def evaluate(context: CycleContext, answers: Annotations, cycle_log: CycleLog) -> CycleReport:
    """Retrain the detector with the new annotations and score it where the old one was scored."""
    cycle_log.enter(Status.EVALUATING)
    report = cycle_log.report() or _blank_report(context)
    train = Annotations.concat([context.annotations.subset(context.split.labelled), answers])
    with _timed(cycle_log) as elapsed:
        context.detector.fit(train, cycle_log.progress)
        scoring, test = _scores(context)
    made = f"detector from {len(train)} labelled images"
    report = replace(
        _after(report, Status.EVALUATING, elapsed(), made),
        scoring_after=scoring,
        test_after=test,
    )
    cycle_log.save_weights("retrained", context.detector.state())
    cycle_log.save_report(report)
    cycle_log.enter(Status.SUCCEEDED)
    return report


def selection_of(
    cycle: str,
    spec: CycleSpec,
    choice: Choice,
    predictions: PoolPredictions,
    classes: Sequence[str],
) -> Selection:
    """The choice with the detector's boxes as pre-labels."""
    detections = predictions.detections.subset(choice.ids)
    boxes: list[list[PredictedBox]] = [[] for _ in choice.ids]
    for row in np.argsort(-detections.scores, kind="stable"):
        image = int(detections.image[row])
        if detections.scores[row] >= PRELABEL_SCORE and len(boxes[image]) < PRELABELS:
            x0, y0, x1, y1 = (round(float(value), 2) for value in detections.boxes[row])
            label = classes[int(detections.labels[row])]
            boxes[image].append(
                PredictedBox((x0, y0, x1, y1), label, float(detections.scores[row]))
            )
    images = tuple(
        SelectedImage(image_id, rank, float(score), reason, tuple(image_boxes))
        for rank, (image_id, score, reason, image_boxes) in enumerate(
            zip(choice.ids, choice.scores, choice.reasons, boxes, strict=True), start=1
        )
    )
    return Selection(cycle, spec.dataset, spec.strategy, choice.strategy, images)


# --- steps --------------------------------------------------------------------------------------


def _fit_and_predict(
    context: CycleContext, cycle_log: CycleLog, report: CycleReport
) -> tuple[PoolPredictions, CycleReport]:
    """Predictions of the labelled and the unlabelled images, stored or new."""
    predictions = cycle_log.predictions("pool")
    if predictions is not None:
        return predictions, report
    split = context.split
    cycle_log.enter(Status.FITTING)
    with _timed(cycle_log) as elapsed:
        context.detector.fit(context.annotations.subset(split.labelled), cycle_log.progress)
        scoring, test = _scores(context)
    cycle_log.save_weights("detector", context.detector.state())
    made = f"detector from {len(split.labelled)} labelled images"
    report = _after(report, Status.FITTING, elapsed(), made)
    report = replace(report, scoring_before=scoring, test_before=test)
    cycle_log.enter(Status.PREDICTING)
    with _timed(cycle_log) as elapsed:
        ids = (*split.labelled, *split.unlabelled)
        predictions = context.detector.predict(ids, cycle_log.progress)
    made = f"embeddings and {len(predictions.detections.scores)} boxes of {len(ids)} images"
    report = _after(report, Status.PREDICTING, elapsed(), made)
    cycle_log.save_report(report)
    cycle_log.save_predictions("pool", predictions)
    return predictions, report


def _fill_table(
    context: CycleContext, cycle_log: CycleLog, query: Query, report: CycleReport
) -> tuple[Query, TableServices, CycleReport]:
    """The query with its folds and table; without a table where too few images are labelled."""
    cycle_log.enter(Status.TRAINING_PROXIES)
    with _timed(cycle_log) as elapsed:
        folds = tuple(fold_pool(context, cycle_log, fold) for fold in folds_of(context))
        query = replace(query, folds=folds)
        services = TableServices(context, cycle_log, query.pool, folds)
        plan = context.strategy(context.spec.strategy).plan(query)
        if not plan:
            return query, services, report
        try:
            table = services.fill(plan)
        except TooFewRecords:
            failed = tuple(services.failed)
            report = replace(report, failed_proxies=failed, notes=services.notes())
            cycle_log.save_report(report)
            raise
    made = f"{len(table)} records of {len(plan)}, {services.trained} trained by this driver"
    report = _after(report, Status.TRAINING_PROXIES, elapsed(), made)
    return replace(query, table=table, measure=services.measure), services, report


def _scores(context: CycleContext) -> tuple[float | None, float | None]:
    """mAP of the fitted detector on the scoring and on the test images; None without any."""
    scoring, test = (
        context.detector.score(context.annotations.subset(ids)) if ids else None
        for ids in (context.split.scoring, context.split.test)
    )
    return scoring, test


def _plain_notes(choice: Choice) -> tuple[Note, ...]:
    return (Note("choice", f"Chosen by {choice.strategy}.", {"winner": choice.strategy}),)


def _blank_report(context: CycleContext) -> CycleReport:
    split = context.split
    if not split.unlabelled:
        raise InvalidInput("dataset", "has no unlabelled images left to choose from")
    return CycleReport(
        cycle=context.id,
        spec=context.spec,
        labelled=len(split.labelled),
        unlabelled=len(split.unlabelled),
        scoring=len(split.scoring),
        test=len(split.test),
        phases=(),
    )


def _after(report: CycleReport, phase: Status, duration_s: float, made: str) -> CycleReport:
    """The report with a phase added; a phase that ran before a restart keeps its time as well."""
    return replace(report, phases=(*report.phases, PhaseTime(phase, round(duration_s, 3), made)))


@contextmanager
def _timed(cycle_log: CycleLog) -> Iterator[Callable[[], float]]:
    start = cycle_log.clock()
    yield lambda: cycle_log.clock() - start

"""A whole cycle over doubles: what it does in which order, and what a restart repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mgral_service.cycle.run import evaluate, run, selection_of
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput, TooFewRecords
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.records import Status
from mgral_service.domain.report import Choice
from mgral_service.domain.specs import CycleSpec, TableAdvanced
from tests.cycle.cycles import PAPER, SPEC, context, log, split
from tests.doubles import CLASSES, FakeDetector, FakeProxies, ids, predictions


def test_a_cycle_goes_through_its_phases_to_a_selection() -> None:
    cycle_log = log()
    selection = run(context(), cycle_log)
    assert cycle_log.statuses == [
        Status.FITTING, Status.PREDICTING, Status.TRAINING_PROXIES, Status.TRAINING_AGENT,
        Status.SELECTED,
    ]  # fmt: skip
    chosen = [image.image_id for image in selection.images]
    assert len(set(chosen)) == 5
    assert set(chosen) <= set(split().unlabelled)
    report = cycle_log.report()
    assert report is not None
    assert report.table is not None
    assert len(report.table.points) == 16
    assert [note.code for note in report.notes][:1] == ["table.size"]
    assert report.test_before == pytest.approx(0.5)
    assert report.scoring_before is None


def test_all_labelled_images_train_the_task_detector_and_test_images_train_nothing() -> None:
    detector, proxies, cycle_log = FakeDetector(), FakeProxies(), log()
    whole = context(detector=detector, proxies=proxies)
    selection = run(whole, cycle_log)
    evaluate(whole, Annotations.empty(image.image_id for image in selection.images), cycle_log)
    assert detector.fits[0] == tuple(split().labelled)
    assert len(detector.fits[-1]) == 35
    trained = {image for images in detector.fits for image in images}
    trained |= {image for spec in proxies.specs.values() for image in spec.labelled}
    assert not trained & set(split().test)
    report = cycle_log.report()
    assert report is not None
    assert report.test_after == pytest.approx(0.55)
    assert cycle_log.statuses[-2:] == [Status.EVALUATING, Status.SUCCEEDED]
    assert "retrained" in cycle_log.stored_weights


@pytest.mark.parametrize("spec", [SPEC, PAPER])
def test_a_restarted_driver_trains_the_difference_and_chooses_the_same(spec: CycleSpec) -> None:
    calm = run(context(spec), log())
    cycle_log = log()
    with pytest.raises(KeyboardInterrupt):
        run(context(spec, proxies=FakeProxies(dies_after=3)), cycle_log)
    proxies, detector = FakeProxies(), FakeDetector()
    assert run(context(spec, proxies=proxies, detector=detector), cycle_log) == calm
    assert len(proxies.trained) == spec.table.records - 3
    assert detector.fits == []  # predictions and weights were stored


def test_the_paper_s_method_trains_on_the_pool_without_labels_and_the_agent_chooses() -> None:
    proxies, cycle_log = FakeProxies(), log()
    selection = run(context(PAPER, proxies=proxies), cycle_log)
    assert selection.strategy == "agent"
    assert len(proxies.specs) == 6
    for spec in proxies.specs.values():
        assert spec.unlabelled == spec.batch
        assert set(spec.batch) <= set(split().unlabelled)
        assert len(spec.scoring) == 4
    assert len({spec.seed for spec in proxies.specs.values()}) == 6
    report = cycle_log.report()
    assert report is not None
    assert report.table is not None
    assert report.table.candidates == ()


def test_failed_proxies_are_noted_and_the_cycle_goes_on() -> None:
    cycle_log = log()
    run(context(proxies=FakeProxies(bad=frozenset({1, 6}))), cycle_log)
    report = cycle_log.report()
    assert report is not None
    assert report.failed_proxies == ("proxy 1: made to fail", "proxy 6: made to fail")
    assert report.notes[0].code == "proxies.failed"
    assert report.notes[0].figures["failed"] == 2


def test_too_few_records_name_the_first_cause() -> None:
    cycle_log = log()
    with pytest.raises(TooFewRecords, match="proxy 0: made to fail"):
        run(context(proxies=FakeProxies(bad=frozenset(range(12)))), cycle_log)
    report = cycle_log.report()
    assert report is not None
    assert len(report.failed_proxies) == 12


def test_too_few_labelled_images_leave_the_choice_to_the_prior() -> None:
    proxies, cycle_log = FakeProxies(), log()
    selection = run(context(pool_split=split(8), proxies=proxies), cycle_log)
    assert proxies.trained == []
    assert selection.strategy == "entropy_root"
    report = cycle_log.report()
    assert report is not None
    assert report.notes[0].code == "table.none"


def test_a_classical_strategy_trains_no_proxy_and_no_fold() -> None:
    proxies, detector, cycle_log = FakeProxies(), FakeDetector(), log()
    spec = replace(SPEC, strategy="coreset")
    selection = run(context(spec, proxies=proxies, detector=detector), cycle_log)
    assert selection.strategy == "coreset"
    assert proxies.trained == []
    assert len(detector.fits) == 1


@pytest.mark.parametrize("start", ["initial", "detector"])
def test_proxies_start_from_the_detector_of_their_fold_if_asked(start: str) -> None:
    table = replace(SPEC.table, advanced=TableAdvanced(start=start))  # type: ignore[arg-type]
    proxies = FakeProxies()
    run(context(replace(SPEC, table=table), proxies=proxies), log())
    if start == "initial":
        assert not proxies.starts
    else:
        assert set(proxies.starts) == {0, 1}
        assert proxies.starts[0]["weight"].tolist() == [11.0] * 3


def test_a_pool_without_images_is_refused() -> None:
    empty = PoolSplit(split().labelled, (), (), ())
    with pytest.raises(InvalidInput, match="no unlabelled images"):
        run(context(pool_split=empty), log())


def test_a_selection_offers_the_detector_s_surer_boxes_best_first() -> None:
    image_ids = ids(6)
    pool = predictions(image_ids)
    choice = Choice("agent", image_ids[4:1:-1], np.array([3.0, 2.0, 1.0]), ("a", "b", "c"))
    selection = selection_of("cyc", CycleSpec("toy", 3), choice, pool, CLASSES)
    assert [image.image_id for image in selection.images] == list(image_ids[4:1:-1])
    assert [image.rank for image in selection.images] == [1, 2, 3]
    detections = pool.detections.subset(image_ids[4:1:-1])
    for position, image in enumerate(selection.images):
        own = (detections.image == position) & (detections.scores >= 0.3)
        assert [box.score for box in image.boxes] == sorted(
            detections.scores[own].tolist(), reverse=True
        )

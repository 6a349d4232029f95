"""A cycle of a comparison on a few scenes: what it is given to see, and that it can be resumed."""

from dataclasses import replace

from benchmarks.lib import runs
from benchmarks.lib.runs import CarriedDetector, Job, again, place, step
from mgral_service.domain.specs import AgentAdvanced, AgentSpec, CycleSpec, DetectorSpec, TableSpec
from mgral_service.metrics import METRICS

SMALL = CycleSpec(
    "digits",
    4,
    strategy="coreset",
    detector=DetectorSpec(size=64, steps=2, batch=2),
    table=TableSpec(records=8, folds=2, steps=1),
    agent=AgentSpec(2, AgentAdvanced(draws=2)),
)
JOB = Job("digits", 40, 12, "coreset", SMALL, "cpu")


def test_initial_images_depend_on_the_seed_alone() -> None:
    here = place("digits", 40, 64)
    mine = here.split(JOB)
    other = here.split(replace(JOB, strategy="mgral", spec=replace(SMALL, strategy="mgral")))
    assert mine == other != here.split(replace(JOB, spec=replace(SMALL, seed=1)))
    assert (len(mine.labelled), len(mine.scoring)) == (12, 0)
    paper = replace(SMALL, strategy="mgral", method="paper", choice="agent")
    assert len(here.split(replace(JOB, spec=paper)).scoring) == 10


def test_a_cycle_sees_no_label_of_the_pool_and_no_test_image() -> None:
    here = place("digits", 40, 64)
    split = here.split(JOB)
    detector = CarriedDetector(
        SMALL.detector, here.data.record.classes, here.images, METRICS["ap50"](), 0, "cpu"
    )
    context = runs.cycle_context(JOB, here, split, detector)
    assert set(context.annotations.ids) == {*split.labelled, *split.scoring}
    assert context.split.test == ()
    shown = {*context.annotations.ids, *context.split.unlabelled}
    assert here.data.images.test
    assert shown.isdisjoint(here.data.images.test)


def test_weights_outlive_the_next_fit() -> None:
    here = place("digits", 40, 64)
    detector = CarriedDetector(
        SMALL.detector, here.data.record.classes, here.images, METRICS["ap50"](), 0, "cpu"
    )
    before = detector.state()
    detector.fit(here.data.annotations.subset(here.split(JOB).labelled), lambda progress: None)
    after = detector.state()
    assert any((before[name] != after[name]).any() for name in before)


def test_a_run_goes_on_alike_with_carried_weights_and_with_a_new_fit() -> None:
    start, weights = step(JOB, None)
    assert (start.cycle, start.images, start.batch) == (0, 12, ())
    job = JOB.after(start)
    carried, _ = step(job, weights)
    again, _ = step(job, None)
    assert replace(carried, seconds=0.0) == replace(again, seconds=0.0)
    assert (carried.cycle, carried.images, len(set(carried.batch))) == (1, 16, 4)
    assert carried.boxes == start.boxes + sum(carried.counts)
    split = place("digits", 40, 64).split(job.after(carried))
    assert [name for name, number in split.labelled.items() if number == 1] == list(carried.batch)
    assert set(split.unlabelled).isdisjoint(carried.batch)


def test_another_detector_knows_what_was_labelled_after_the_job_and_not_who_chose_it() -> None:
    job = replace(JOB, cycle=1)
    batch = place("digits", 40, 64).split(job).unlabelled[:4]
    assert again(job, batch, 1) == again(job, batch, 1)
    later = replace(job, strategy="entropy", cycle=2, bought=(batch,))
    assert later.key_after(()) == job.key_after(batch) != job.key_after(batch[:2])
    assert job.key_after(batch) != replace(JOB, spec=replace(SMALL, seed=1)).key_after(batch)


def test_the_trainings_and_seconds_of_choosing_are_counted() -> None:
    job = replace(JOB, strategy="mgral", spec=replace(SMALL, strategy="mgral"), cycle=1)
    point, _ = step(job, None)
    assert point.trainings == 8
    assert len(point.candidates) == 9
    assert point.seconds > 0
    assert len(point.batch) == 4

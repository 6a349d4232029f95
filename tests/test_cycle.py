import numpy as np

from mgral_service.cycle import Purpose, seed_of, selection_of, stream, table_words
from mgral_service.domain.records import Choice
from mgral_service.domain.specs import CycleSpec, TableSpec
from tests.doubles import CLASSES, ids, observation


def test_streams_of_one_seed_differ_by_purpose_and_repeat() -> None:
    first = stream(7, Purpose.DESIGN).random(4)
    assert (first == stream(7, Purpose.DESIGN).random(4)).all()
    assert (first != stream(7, Purpose.SELECT).random(4)).all()
    assert seed_of(7, Purpose.PROXY) == seed_of(7, Purpose.PROXY) != seed_of(8, Purpose.PROXY)


def test_a_selection_offers_the_detector_s_surer_boxes_best_first() -> None:
    names = ids(6)
    seen = observation(names)
    choice = Choice("agent", names[4:1:-1], np.array([3.0, 2.0, 1.0]), ("a", "b", "c"))
    selection = selection_of("cyc", CycleSpec("toy", 3), choice, seen, CLASSES)
    assert [one.image_id for one in selection.images] == list(names[4:1:-1])
    assert [one.rank for one in selection.images] == [1, 2, 3]
    found = seen.detections.subset(names[4:1:-1])
    for at, one in enumerate(selection.images):
        scores = found.scores[(found.image == at) & (found.scores >= 0.3)]
        assert [box.score for box in one.boxes] == sorted(scores.tolist(), reverse=True)


def test_a_table_that_went_well_needs_no_words() -> None:
    assert table_words(40, TableSpec(records=40), (), 0) == ()


def test_a_table_says_what_failed_first_and_how_few_records_would_do() -> None:
    failed = ("proxy 3: the loss became nan", "proxy 5: killed", "proxy 9: killed")
    assert table_words(37, TableSpec(records=40), failed, 0) == (
        "The table has 37 of 40 records: 3 proxies failed (first cause: proxy 3: the loss became "
        "nan); the minimum is 20.",
    )


def test_preempted_proxies_are_told_apart_from_failed_ones() -> None:
    assert table_words(40, TableSpec(records=40), (), 2) == (
        "2 proxies lost a preempted node and started over.",
    )

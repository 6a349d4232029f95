import numpy as np

from mgral_service.cycle import selection_of
from mgral_service.domain.evidence import Choice
from mgral_service.domain.specs import CycleSpec
from tests.doubles import CLASSES, ids, observation


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

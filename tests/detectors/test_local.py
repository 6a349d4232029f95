"""The two ports: a detector that learns, and proxies whose score depends on their spec alone."""

import numpy as np
import pytest
import torch

from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector
from mgral_service.detectors.net import Targets
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.records import Progress, ProxySpec
from mgral_service.domain.specs import DetectorSpec, TableSpec
from mgral_service.metrics import METRICS
from tests.detectors.tiny import CLASSES, SIDE, squares

IMAGES, TRUTH = squares(24)
LABELLED, SCORING, POOL = TRUTH.ids[:8], TRUTH.ids[8:12], TRUTH.ids[12:]
SPEC = DetectorSpec(size=SIDE, steps=40, batch=4, learning_rate=1e-2)


def proxies(steps: int = 3, objective: str = "isd") -> LocalProxyTrainer:
    return LocalProxyTrainer(
        DetectorSpec(size=SIDE, batch=4, learning_rate=1e-2),
        TableSpec(steps=steps, objective=objective),  # type: ignore[arg-type]
        CLASSES,
        IMAGES,
        TRUTH.subset((*LABELLED, *SCORING)),
        SCORING,
        METRICS["ap50"](),
    )


def test_a_detector_learns_to_find_squares() -> None:
    detector = TaskDetector(SPEC, CLASSES, IMAGES, METRICS["ap50"](), seed=0)
    heard: list[Progress] = []
    detector.fit(TRUTH.subset(LABELLED), heard.append)
    assert detector.score(TRUTH.subset(POOL)) > 0.4
    assert (heard[-1].phase, heard[-1].done, heard[-1].total) == ("FITTING", 40, 40)
    seen = detector.observe(POOL, heard.append)
    assert seen.ids == POOL
    assert (heard[-1].phase, heard[-1].done) == ("OBSERVING", len(POOL))
    best = seen.detections.boxes[seen.detections.image == 0][0]
    np.testing.assert_allclose(best, TRUTH.subset(POOL[:1]).boxes[0], atol=12)
    assert all(isinstance(value, np.ndarray) for value in detector.state().values())


def test_the_same_seed_and_images_give_the_same_detector_in_whatever_order_they_are_named() -> None:
    detector = TaskDetector(
        DetectorSpec(size=SIDE, steps=2, batch=4), CLASSES, IMAGES, METRICS["ap50"](), seed=3
    )
    states = []
    for ids in (LABELLED, LABELLED[::-1]):
        detector.fit(TRUTH.subset(ids), lambda progress: None)
        states.append(detector.state())
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize("objective", ["isd", "csd"])
def test_a_proxys_score_does_not_depend_on_what_was_trained_before_it(objective: str) -> None:
    first = ProxySpec(0, LABELLED, POOL[:4], 7)
    second = ProxySpec(1, LABELLED, POOL[4:8], 7)
    torch.manual_seed(1)
    one = [result.score for result in proxies(objective=objective).train([first, second])]
    torch.manual_seed(2)
    other = [result.score for result in proxies(objective=objective).train([second, first])]
    assert one == other[::-1]
    assert all(score is not None and 0 <= score <= 1 for score in one)


def test_a_proxy_that_diverges_gives_its_cause_and_the_next_one_a_score() -> None:
    trainer = proxies()
    trainer._recipe = type(trainer._recipe)(3, float("nan"))
    (result,) = trainer.train([ProxySpec(0, LABELLED, POOL[:4], 0)])
    assert result.score is None
    assert "learning_rate" in (result.cause or "")


def test_an_image_that_scores_may_not_train() -> None:
    with pytest.raises(InvalidInput, match="scores"):
        list(proxies().train([ProxySpec(0, LABELLED, SCORING[:1], 0)]))


def test_without_labelled_images_there_is_nothing_to_train_on() -> None:
    with pytest.raises(InvalidInput, match="labelled"):
        list(proxies().train([ProxySpec(0, (), POOL[:2], 0)]))


def test_targets_are_padded_in_order_and_leave_out_ignored_objects() -> None:
    rows = TRUTH.subset(LABELLED[:3])
    ignored = type(rows)(
        rows.ids, np.array([0, 0, 2]), rows.boxes, rows.labels, np.array([False, False, True])
    )
    targets = Targets.of(ignored, ignored.ids, torch.device("cpu"))
    assert targets.labels.tolist() == [[1, 2], [0, 0], [0, 0]]
    np.testing.assert_allclose(targets.boxes[0], rows.boxes[:2])

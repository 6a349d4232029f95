"""The two ports: a detector that learns, and proxies whose score depends on their spec alone."""

from typing import Any

import numpy as np
import pytest
import torch

from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector, pauses
from mgral_service.detectors.net import Targets
from mgral_service.domain.boxes import Annotations, Detections
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import RewardMetric, Weights
from mgral_service.domain.records import Progress, ProxySpec
from mgral_service.domain.specs import DetectorSpec, TableSpec
from mgral_service.metrics import METRICS
from tests.detectors.tiny import CLASSES, SIDE, squares

IMAGES, TRUTH = squares(24)
LABELLED, SCORING, POOL = TRUTH.ids[:8], TRUTH.ids[8:12], TRUTH.ids[12:]
SPEC = DetectorSpec(size=SIDE, steps=40, batch=4, learning_rate=1e-2)


def proxies(
    metric: RewardMetric | None = None, rate: float = 1e-2, **table: Any
) -> LocalProxyTrainer:
    return LocalProxyTrainer(
        DetectorSpec(size=SIDE, batch=4, learning_rate=rate),
        TableSpec(**({"steps": 3} | table)),
        CLASSES,
        IMAGES,
        TRUTH.subset((*LABELLED, *SCORING)),
        SCORING,
        METRICS["ap50"]() if metric is None else metric,
    )


class Script:
    """A metric that says these values, one after the other."""

    def __init__(self, *values: float) -> None:
        self.left = list(values)

    def __call__(self, detections: Detections, annotations: Annotations) -> float:
        assert detections.ids == annotations.ids == SCORING
        return self.left.pop(0)


def score_of(trainer: LocalProxyTrainer, start: Weights | None = None) -> float:
    (result,) = trainer.train(
        [ProxySpec(0, LABELLED, POOL[:4], 7)], {} if start is None else {0: start}
    )
    assert result.score is not None
    return result.score


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


@pytest.mark.parametrize(("objective", "views"), [("isd", 0), ("csd", 0), ("csd", 2)])
@pytest.mark.parametrize("batch", [POOL[:4], ()], ids=["batch", "labels only"])
def test_a_proxys_score_does_not_depend_on_what_was_trained_before_it(
    objective: str, views: int, batch: tuple[str, ...]
) -> None:
    first = ProxySpec(0, LABELLED, batch, 7)
    second = ProxySpec(1, LABELLED, POOL[4:8], 7)
    scores = []
    for seed, order in enumerate(([first, second], [second, first])):
        torch.manual_seed(seed)
        trainer = proxies(objective=objective, views=views, steps=6)
        scores.append([result.score for result in trainer.train(order)])
    one, other = scores
    assert one == other[::-1]
    assert all(score is not None and 0 <= score <= 1 for score in one)


def test_the_score_is_the_mean_over_the_checkpoints() -> None:
    script = Script(0.2, 0.4, 0.9)
    assert score_of(proxies(script, steps=10, checkpoints=3)) == pytest.approx(0.5)
    assert not script.left


def test_checkpoints_spread_over_the_last_fifth_and_a_broken_off_run_has_two_pauses() -> None:
    assert pauses(TableSpec(steps=80)) == ()
    assert sorted(pauses(TableSpec(steps=80, checkpoints=3))) == [64, 72]
    assert sorted(pauses(TableSpec(steps=80, stop=0.5))) == [20, 30]


def test_repeats_are_trained_one_by_one_and_averaged() -> None:
    assert score_of(proxies(Script(0.1, 0.2, 0.6), repeats=3)) == pytest.approx(0.3)


def test_repeats_have_seeds_of_their_own() -> None:
    trainer = proxies(repeats=2, steps=2)
    alone = proxies(steps=2)
    trained = []
    for one, seeds in ((trainer, (7,)), (alone, (7,)), (alone, (8,))):
        list(one.train([ProxySpec(0, LABELLED, POOL[:4], seed) for seed in seeds]))
        trained.append(next(one._net.head.parameters()).detach().clone())  # type: ignore[union-attr]
    assert torch.equal(trained[0], trained[2])
    assert not torch.equal(trained[0], trained[1])


def test_a_run_that_stops_early_is_scored_as_if_it_had_ended() -> None:
    script = Script(1 / 4, 1 / 3, 3 / 8)  # 1/2 - 1/t after 4, 6 and 8 steps
    assert score_of(proxies(script, steps=20, stop=0.4)) == pytest.approx(0.45)


def test_a_proxy_starts_from_the_weights_given_each_time_and_leaves_them_alone() -> None:
    detector = TaskDetector(SPEC, CLASSES, IMAGES, METRICS["ap50"](), seed=0)
    detector.fit(TRUTH.subset(LABELLED), lambda progress: None)
    start = {name: value.copy() for name, value in detector.state().items()}
    for value in start.values():
        value.flags.writeable = False  # as they come out of a cluster's shared memory
    trainer = proxies(rate=1e-4, steps=1)
    first = score_of(trainer, start)
    assert first > score_of(trainer) + 0.2
    assert score_of(trainer, start) == first
    assert all(np.array_equal(start[name], value) for name, value in detector.state().items())


def test_a_proxy_that_diverges_gives_its_cause_and_the_next_one_a_score() -> None:
    trainer = proxies()
    trainer._recipe = type(trainer._recipe)(3, float("nan"))
    (result,) = trainer.train([ProxySpec(0, LABELLED, POOL[:4], 0)])
    assert result.score is None
    assert "learning_rate" in (result.cause or "")


def test_an_image_that_scores_may_not_train() -> None:
    with pytest.raises(InvalidInput, match="scores"):
        list(proxies().train([ProxySpec(0, LABELLED, SCORING[:1], 0)]))


@pytest.mark.parametrize("views", [0, 2])
def test_a_proxy_may_train_on_scoring_images_that_do_not_score_it(views: int) -> None:
    trainer = proxies(objective="csd", views=views, steps=6)
    images = (*LABELLED, *SCORING[:2])
    parts = [(LABELLED, ()), (LABELLED, SCORING), (images, SCORING[2:])]
    scores = [
        result.score
        for train, scoring in parts
        for result in trainer.train([ProxySpec(0, train, (), 7, scoring=scoring)])
    ]
    assert scores[0] == scores[1]
    assert scores[2] is not None
    with pytest.raises(InvalidInput, match="scores"):
        list(trainer.train([ProxySpec(0, images, (), 7, scoring=SCORING)]))


def test_without_labelled_images_there_is_nothing_to_train_on() -> None:
    for views in (0, 2):
        with pytest.raises(InvalidInput, match="labelled"):
            list(proxies(objective="csd", views=views).train([ProxySpec(0, (), POOL[:2], 0)]))


def test_weights_that_are_not_there_are_refused_before_anything_is_trained() -> None:
    spec = DetectorSpec(size=SIDE, weights="gone.safetensors")
    with pytest.raises(InvalidInput, match="is no file here"):
        TaskDetector(spec, CLASSES, IMAGES, METRICS["ap50"](), seed=0)


def test_targets_are_padded_in_order_and_leave_out_ignored_objects() -> None:
    rows = TRUTH.subset(LABELLED[:3])
    ignored = type(rows)(
        rows.ids, np.array([0, 0, 2]), rows.boxes, rows.labels, np.array([False, False, True])
    )
    targets = Targets.of(ignored, ignored.ids, torch.device("cpu"))
    assert targets.labels.tolist() == [[1, 2], [0, 0], [0, 0]]
    np.testing.assert_allclose(targets.boxes[0], rows.boxes[:2])

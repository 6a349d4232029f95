"""The two ports: a detector that learns, and proxies whose score depends on their spec alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector
from mgral_service.detectors.nets.ssdlite import SsdLite
from mgral_service.domain.boxes import Annotations, Detections
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import NOTHING, RewardMetric, Weights
from mgral_service.domain.records import Progress, ProxySpec
from mgral_service.domain.specs import (
    DetectorAdvanced,
    DetectorSpec,
    TableAdvanced,
    TableSpec,
)
from mgral_service.metrics import METRICS
from tests.detectors.tiny import CLASSES, SIDE, squares

IMAGES, TRUTH = squares(24)
LABELLED, SCORING, POOL = TRUTH.ids[:8], TRUTH.ids[8:12], TRUTH.ids[12:]
CACHED = DetectorAdvanced(augmentations=2)


def detector_of(steps: int = 40, seed: int = 0, **spec: Any) -> TaskDetector:
    detector = DetectorSpec(size=SIDE, steps=steps, batch=4, **spec)
    return TaskDetector(detector, CLASSES, IMAGES, METRICS["ap50"](), seed)


def proxies(
    metric: RewardMetric | None = None,
    steps: int = 3,
    objective: str | None = "isd",
    learning_rate: float = 1e-2,
    **advanced: Any,
) -> LocalProxyTrainer:
    return LocalProxyTrainer(
        DetectorSpec(size=SIDE, batch=4, learning_rate=learning_rate),
        TableSpec(
            steps=steps,
            objective=objective,
            advanced=TableAdvanced(**{"rate": 1.0, "augmentations": 0} | advanced),
        ),
        CLASSES,
        IMAGES,
        TRUTH,
        METRICS["ap50"]() if metric is None else metric,
    )


def proxy(
    index: int = 0,
    labelled: Sequence[str] = LABELLED,
    unlabelled: Sequence[str] = POOL[:4],
    scoring: Sequence[str] = SCORING,
    seed: int = 7,
    fold: int | None = None,
) -> ProxySpec:
    return ProxySpec(
        index=index,
        role="pool",
        chosen_by="uniform",
        fold=fold,
        batch=tuple(unlabelled),
        labelled=tuple(labelled),
        unlabelled=tuple(unlabelled),
        scoring=tuple(scoring),
        seed=seed,
    )


class Script:
    """A metric that says these values, one after the other."""

    def __init__(self, *values: float) -> None:
        self.left = list(values)

    def __call__(self, detections: Detections, annotations: Annotations) -> float:
        assert detections.ids == annotations.ids == SCORING
        return self.left.pop(0)


def certainty(detections: Detections, annotations: Annotations) -> float:
    """A metric in which every weight has a part."""
    return float(detections.scores.sum())


def score_of(
    trainer: LocalProxyTrainer,
    spec: ProxySpec | None = None,
    starts: Mapping[int | None, Weights] = NOTHING,
) -> float:
    (result,) = trainer.train([spec or proxy()], starts)
    assert result.score is not None
    return result.score


@pytest.fixture(scope="module")
def fitted() -> TaskDetector:
    detector = detector_of()
    detector.fit(TRUTH.subset(LABELLED), lambda progress: None)
    return detector


# --- the task detector ----------------------------------------------------------------------------


@pytest.mark.parametrize("advanced", [DetectorAdvanced(), CACHED], ids=["drawn", "cached"])
def test_a_detector_learns_to_find_squares(advanced: DetectorAdvanced) -> None:
    detector = detector_of(advanced=advanced)
    reports: list[Progress] = []
    detector.fit(TRUTH.subset(LABELLED), reports.append)
    assert detector.score(TRUTH.subset(POOL)) > 0.4
    assert (reports[-1].phase, reports[-1].done, reports[-1].total) == ("FITTING", 40, 40)
    predictions = detector.predict(POOL[::-1], reports.append)
    assert predictions.ids == predictions.detections.ids == POOL
    assert (reports[-1].phase, reports[-1].done) == ("PREDICTING", len(POOL))
    best = predictions.detections.boxes[predictions.detections.image == 0][0]
    np.testing.assert_allclose(best, TRUTH.subset(POOL[:1]).boxes[0], atol=12)
    assert all(isinstance(value, np.ndarray) for value in detector.state().values())


@pytest.mark.parametrize("advanced", [DetectorAdvanced(), CACHED], ids=["drawn", "cached"])
def test_the_same_seed_and_images_give_the_same_detector_in_whatever_order_they_are_named(
    advanced: DetectorAdvanced,
) -> None:
    detector = detector_of(steps=2, seed=3, advanced=advanced)
    states = []
    for ids in (LABELLED, LABELLED[::-1]):
        detector.fit(TRUTH.subset(ids), lambda progress: None)
        states.append(detector.state())
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])


def test_a_cached_image_goes_through_the_backbone_once(monkeypatch: pytest.MonkeyPatch) -> None:
    images: list[int] = []
    features = SsdLite.features

    def counted(net: SsdLite, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images.append(len(pixels))
        return features(net, pixels)

    monkeypatch.setattr(SsdLite, "features", counted)
    detector = detector_of(steps=4, advanced=CACHED)
    for _ in range(2):
        detector.fit(TRUTH.subset(LABELLED), lambda progress: None)
        detector.predict(POOL, lambda progress: None)
        detector.score(TRUTH.subset(POOL))
    assert sum(images) == 2 * 2 * len(LABELLED) + len(POOL)  # two views, each mirrored as well


def test_a_backbone_that_trains_is_not_cached() -> None:
    detector = detector_of(steps=1, freeze_backbone=False, advanced=CACHED)
    before = detector.predict(POOL[:2], lambda progress: None)
    detector.fit(TRUTH.subset(LABELLED), lambda progress: None)
    after = detector.predict(POOL[:2], lambda progress: None)
    assert not np.array_equal(before.embeddings, after.embeddings)


def test_weights_that_are_not_there_are_refused_before_anything_is_trained() -> None:
    with pytest.raises(InvalidInput, match="is no file here"):
        detector_of(weights="gone.safetensors")


# --- proxies --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("objective", "augmentations"), [("isd", 0), (None, 0), (None, 2)])
@pytest.mark.parametrize("unlabelled", [POOL[:4], ()], ids=["unlabelled", "labelled only"])
def test_a_proxys_score_does_not_depend_on_what_was_trained_before_it(
    objective: str | None, augmentations: int, unlabelled: tuple[str, ...]
) -> None:
    first = proxy(0, unlabelled=unlabelled)
    second = proxy(1, unlabelled=POOL[4:8])
    scores = []
    for seed, order in enumerate(([first, second], [second, first])):
        torch.manual_seed(seed)
        trainer = proxies(certainty, 6, objective, augmentations=augmentations)
        scores.append({result.index: result.score for result in trainer.train(order)})
    assert scores[0] == scores[1]
    assert scores[0][0] != scores[0][1]


def test_repeats_are_trained_one_by_one_and_averaged() -> None:
    assert score_of(proxies(Script(0.1, 0.2, 0.6), repeats=3)) == pytest.approx(0.3)


def test_repeats_have_seeds_of_their_own() -> None:
    alone = [score_of(proxies(certainty), proxy(seed=seed)) for seed in (7, 8)]
    assert alone[0] != alone[1]
    assert score_of(proxies(certainty, repeats=2)) == pytest.approx(np.mean(alone))


def test_a_proxy_starts_from_the_weights_of_its_fold_each_time_and_leaves_them_alone(
    fitted: TaskDetector,
) -> None:
    start = {name: value.copy() for name, value in fitted.state().items()}
    for value in start.values():
        value.flags.writeable = False  # as they come out of a cluster's shared memory
    trainer = proxies(learning_rate=1e-4, steps=1)
    for fold in (None, 3):
        first = score_of(trainer, proxy(fold=fold), {fold: start})
        assert first > score_of(trainer, proxy(fold=fold), {0: start}) + 0.2
        assert score_of(trainer, proxy(fold=fold), {fold: start}) == first
    assert all(np.array_equal(start[name], value) for name, value in fitted.state().items())


def test_a_proxy_that_diverges_gives_its_cause_and_the_next_a_score(fitted: TaskDetector) -> None:
    broken = {name: np.full_like(value, np.nan) for name, value in fitted.state().items()}
    specs = [proxy(0, fold=0), proxy(1, fold=1)]
    diverged, trained = proxies().train(specs, {0: broken})
    assert diverged.score is None
    assert "learning_rate" in (diverged.cause or "")
    assert trained.score is not None


@pytest.mark.parametrize(
    "spec", [proxy(unlabelled=SCORING[:1]), proxy(labelled=(*LABELLED, SCORING[0]), unlabelled=())]
)
def test_an_image_that_scores_may_not_train(spec: ProxySpec) -> None:
    with pytest.raises(InvalidInput, match="scores"):
        list(proxies().train([spec]))


def test_an_objective_that_makes_images_is_given_images() -> None:
    drawn, cached = (proxies(certainty, 2, augmentations=count) for count in (0, 2))
    assert score_of(drawn) == score_of(cached)
    labelled_only = proxy(unlabelled=())
    assert score_of(drawn, labelled_only) != score_of(cached, labelled_only)


@pytest.mark.parametrize("augmentations", [0, 2])
def test_without_labelled_images_there_is_nothing_to_train_on(augmentations: int) -> None:
    trainer = proxies(objective=None, augmentations=augmentations)
    with pytest.raises(InvalidInput, match="labelled"):
        list(trainer.train([proxy(labelled=())]))


def test_an_objective_that_does_not_suit_the_detector_is_refused() -> None:
    with pytest.raises(InvalidInput, match="ssdlite trains with"):
        proxies(objective="sed")

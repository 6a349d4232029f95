from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mgral_service.domain.acquisition import expected_objects, image_entropy
from mgral_service.domain.value.features import NAMES, BatchFeatures, agent_state
from tests.domain.pools import pool_of, predict

POOL = pool_of(200, labelled=40, batch_size=20)


def column(name: str, batches: list[np.ndarray]) -> np.ndarray:
    return BatchFeatures(POOL)(batches)[:, NAMES.index(name)]


def test_features_are_finite_and_the_same_alone_or_together() -> None:
    features = BatchFeatures(POOL)
    batches = [np.arange(50, 70), np.arange(100, 120), np.array([77])]
    together = features(batches)
    assert together.shape == (3, len(NAMES))
    assert np.isfinite(together).all()
    for row, batch in zip(together, batches, strict=True):
        assert features([batch])[0] == pytest.approx(row)


def test_uniform_batches_are_the_zero() -> None:
    rng = np.random.default_rng(0)
    batches = [rng.permutation(POOL.candidates)[:20] for _ in range(300)]
    rows = BatchFeatures(POOL)(batches)
    assert np.abs(rows.mean(axis=0)).max() < 0.03


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("entropy_mean", POOL.entropy.mean),
        ("entropy_sum", POOL.entropy.sum),
        ("novelty", POOL.novelty),
        ("expected_objects", POOL.expected_objects.sum(axis=1)),
        ("class_deficit", POOL.expected_objects.sum(axis=1)),
    ],
)
def test_batches_of_the_highest_values_stand_out(name: str, values: np.ndarray) -> None:
    order = POOL.candidates[np.argsort(values[POOL.candidates])]
    low, high = column(name, [order[:20], order[-20:]])
    assert high > 0 > low


def test_batches_far_from_the_centre_are_more_diverse() -> None:
    centre = np.linalg.norm(POOL.points[POOL.candidates], axis=1)
    order = POOL.candidates[np.argsort(centre)]
    near, far = column("diversity", [order[:20], order[-20:]])
    assert far > 0 > near


def test_a_larger_batch_covers_more() -> None:
    features = BatchFeatures(POOL)
    raw = [features._raw([POOL.candidates[:size]])[0][-1] for size in (5, 20, 80)]
    assert raw == sorted(raw)


def test_a_batch_of_all_classes_covers_them() -> None:
    objects = POOL.expected_objects
    alone = POOL.candidates[np.argsort(-(objects[:, 0] - objects[:, 1:].sum(axis=1))[40:])][:20]
    mixed = POOL.candidates[np.argsort(-objects[POOL.candidates].min(axis=1))][:20]
    single, every = column("class_coverage", [alone, mixed])
    assert every > single


def test_pools_without_detections_or_labels_give_finite_features() -> None:
    predictions = predict(30, most=0)
    embeddings = predictions.embeddings.copy()
    embeddings[3], embeddings[:, 2] = np.nan, 7.0
    pool = pool_of(labelled=0, predictions=replace(predictions, embeddings=embeddings))
    assert np.isfinite(BatchFeatures(pool)([np.arange(10, 20)])).all()


def test_the_agent_reads_embeddings_alone_or_what_was_detected_too() -> None:
    predictions = predict(40)
    assert (agent_state(predictions, 3, "embedding") == predictions.embeddings).all()
    full = agent_state(predictions, 3, "full")
    entropy = image_entropy(predictions.detections)
    assert full[:, -3:] == pytest.approx(
        np.column_stack([entropy.mean, entropy.max, np.log1p(entropy.sum)])
    )
    assert full[:, 8:-3] == pytest.approx(np.log1p(expected_objects(predictions.detections, 3)))
    part = predictions.subset(predictions.ids[7:9])
    assert agent_state(part, 3, "full") == pytest.approx(full[7:9])

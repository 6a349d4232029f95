from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from mgral_service.domain.features import (
    BatchFeatures,
    agent_state,
    image_columns,
    principal_components,
)
from tests.domain.pools import CLASSES, observe

LABELLED = np.arange(6)


def test_features_are_named_finite_and_the_same_alone_or_together() -> None:
    features = BatchFeatures(observe(40), LABELLED, CLASSES)
    batches = [np.arange(10, 15), np.arange(20, 40), np.array([7])]
    together = features(batches)
    assert together.shape == (3, len(features.names))
    assert np.isfinite(together).all()
    for row, batch in zip(together, batches, strict=True):
        assert features([batch])[0] == pytest.approx(row)


def test_additive_features_are_means_and_the_rest_is_as_said() -> None:
    observation = observe(40)
    features = BatchFeatures(observation, LABELLED, CLASSES)
    batch = np.array([8, 11, 30])
    row = dict(zip(features.names, features([batch])[0], strict=True))
    columns = features.columns
    assert row["entropy mean"] == pytest.approx(columns.uncertainty[batch, 0].mean())
    assert row["novelty"] == pytest.approx(columns.novelty[batch].mean())
    seen = columns.evidence[np.concatenate([LABELLED, batch])].sum(axis=0)
    usual = 1 + columns.evidence[LABELLED].sum(axis=0) + 3 * columns.evidence.mean(axis=0)
    saturated = 1 - np.exp(-seen / usual)
    assert row["objects of cat"] == pytest.approx(saturated[CLASSES.index("cat")])
    assert row["class coverage"] == pytest.approx(saturated.mean())
    reach = cdist(columns.points, columns.points[np.concatenate([LABELLED, batch])]).min(axis=1)
    assert row["coverage"] == pytest.approx(reach.mean(), rel=1e-5)
    assert row["spread"] == pytest.approx(columns.components[batch].var(axis=0).sum())


def test_a_larger_batch_never_covers_less() -> None:
    features = BatchFeatures(observe(40), np.zeros(0, dtype=np.int64), CLASSES)
    at = features.names.index("coverage")
    small, large = features([np.arange(3), np.arange(9)])[:, at]
    assert large <= small


def test_nan_embeddings_and_an_observation_without_detections_give_finite_features() -> None:
    observation = observe(30, most=0)
    embeddings = observation.embeddings.copy()
    embeddings[3] = np.nan
    embeddings[:, 2] = 7.0
    features = BatchFeatures(replace(observation, embeddings=embeddings), LABELLED, CLASSES)
    assert np.isfinite(features([np.arange(10, 20)])).all()


def test_an_empty_batch_is_refused() -> None:
    features = BatchFeatures(observe(20), LABELLED, CLASSES)
    for batches in ([], [np.zeros(0, dtype=np.int64)]):
        with pytest.raises(ValueError, match="one image or more"):
            features(batches)


def test_linear_values_average_to_the_additive_part() -> None:
    features = BatchFeatures(observe(40), LABELLED, CLASSES)
    additive = features.names.index("novelty") + 1
    weights = np.zeros(len(features.names))
    weights[:additive] = np.random.default_rng(0).standard_normal(additive)
    batch = np.arange(12, 20)
    values = features.linear_values(weights, len(batch), batch[:3])
    assert values[batch].mean() == pytest.approx(float(features([batch])[0] @ weights))


def test_linear_values_favour_images_of_a_wanted_class() -> None:
    features = BatchFeatures(observe(40), LABELLED, CLASSES)
    weights = np.zeros(len(features.names))
    weights[features.names.index("objects of dog")] = 1.0
    values = features.linear_values(weights, 5, LABELLED[:0])
    assert np.corrcoef(values, features.columns.evidence[:, 1])[0, 1] == pytest.approx(1)


@pytest.mark.parametrize("name", ["objects of dog", "class coverage"])
def test_linear_values_are_the_slope_of_the_class_features(name: str) -> None:
    features = BatchFeatures(observe(4000), LABELLED, CLASSES)
    weights = np.zeros(len(features.names))
    weights[features.names.index(name)] = 1.0
    rng = np.random.default_rng(0)
    batch = rng.permutation(np.arange(6, 4000))[:1000]
    values = features.linear_values(weights, 1000, batch)
    rich, poor = np.argsort(values)[-30:], np.argsort(values)[:30]
    more, less = (np.concatenate([batch[:-30], some]) for some in (rich, poor))
    gain = np.diff(features([less, more]) @ weights)[0]
    assert (values[rich].mean() - values[poor].mean()) * 0.03 == pytest.approx(gain, rel=0.1)


def test_the_agent_sees_embeddings_alone_or_what_was_detected_too() -> None:
    observation = observe(40)
    columns = image_columns(observation, LABELLED)
    assert (agent_state(observation, 3, "embedding") == observation.embeddings).all()
    full = agent_state(observation, 3, "full")
    wanted = [observation.embeddings, np.log1p(columns.evidence), columns.uncertainty]
    assert full == pytest.approx(np.concatenate(wanted, axis=1))
    some = observation.subset(observation.ids[7:9])
    assert agent_state(some, 3, "full") == pytest.approx(full[7:9])


def test_components_are_few_in_small_pools_and_none_of_constant_points() -> None:
    points = np.random.default_rng(0).standard_normal((5, 30))
    components = principal_components(points, 16)
    assert components.shape == (5, 4)
    assert components[:, 0].std() == pytest.approx(1)
    assert principal_components(np.ones((5, 3)), 16).shape == (5, 0)


def test_detections_in_another_order_are_aligned() -> None:
    observation = observe(12)
    turned = replace(observation, detections=observation.detections.subset(observation.ids[::-1]))
    expected = image_columns(observation, LABELLED).evidence
    assert image_columns(turned, LABELLED).evidence == pytest.approx(expected)

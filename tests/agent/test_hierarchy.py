"""Clusters first, then images."""

import numpy as np
import pytest
import torch

from mgral_service.agent import hierarchy
from mgral_service.agent.hierarchy import centroids_of, nearest, select_by_clusters, shortlist
from mgral_service.agent.policy import Policy, score, weights_of
from mgral_service.agent.streaming import Weights, select
from mgral_service.domain.arrays import FloatArray


def heaps(count: int, kinds: int = 8) -> FloatArray:
    """[count, 6] points in tight heaps far apart; point i is of heap i % kinds."""
    rng = np.random.default_rng(0)
    middles = 4 * rng.standard_normal((kinds, 6))
    points: FloatArray = middles[np.arange(count) % kinds] + 0.05 * rng.standard_normal((count, 6))
    return points


def weights(lane: int = 1) -> Weights:
    """In lanes of one image a score depends on the image alone."""
    return weights_of(Policy(6, torch.Generator().manual_seed(0)), lane)


def test_centroids_are_the_same_for_the_same_seed() -> None:
    points = heaps(200)
    first = centroids_of(points, 10, 0)
    np.testing.assert_array_equal(first, centroids_of(points, 10, 0))
    assert not np.array_equal(first, centroids_of(points, 10, 1))


def test_centroids_move_to_the_means_of_their_points() -> None:
    points = heaps(400)
    middle = centroids_of(points, 1, 0)
    np.testing.assert_allclose(middle[0], points.mean(axis=0), atol=0.2)
    centroids = centroids_of(points, 12, 0)
    members = nearest(points, centroids)
    assert all(
        len(set(np.arange(400)[members == centre] % 8)) <= 2 for centre in np.unique(members)
    )


def test_no_more_centroids_than_points() -> None:
    points = heaps(5)
    assert centroids_of(points, 9, 0).shape == (5, 6)


def test_the_clusters_of_the_highest_scores_are_opened_until_they_hold_enough() -> None:
    points = heaps(400)
    rows = shortlist(weights(), points, 60, 20, 0, multiple=3.0)
    assert 60 <= len(rows) <= 200
    assert (np.diff(rows) > 0).all()
    scores = score(weights(), points)
    left = np.setdiff1d(np.arange(400), rows)
    assert scores[rows].mean() > scores[left].mean()


def test_the_best_of_tight_clusters_are_those_of_the_full_pass() -> None:
    points = heaps(400)
    full = select(weights(), points, 20)
    best = select_by_clusters(weights(), points, 60, 20, 0, multiple=6.0)
    np.testing.assert_array_equal(best.positions, full.positions)
    np.testing.assert_allclose(best.scores, full.scores, atol=1e-6)


@pytest.mark.parametrize(("clusters", "multiple"), [(0, 3.0), (8, 1000.0), (8, 399 / 20)])
def test_all_clusters_open_give_the_full_pass(clusters: int, multiple: float) -> None:
    points = heaps(400)
    full = select(weights(16), points, 20)
    best = select_by_clusters(weights(16), points, clusters, 20, 0, multiple)
    np.testing.assert_array_equal(best.positions, full.positions)
    np.testing.assert_array_equal(best.scores, full.scores)


def test_a_sample_places_the_centroids_of_a_larger_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchy, "SAMPLE", 50)
    monkeypatch.setattr(hierarchy, "_PER_CLUSTER", 1)
    monkeypatch.setattr(hierarchy, "_ROWS", 64)
    points = heaps(400)
    rows = shortlist(weights(), points, 20, 10, 0)
    assert 30 <= len(rows) < 400
    np.testing.assert_array_equal(rows, shortlist(weights(), points, 20, 10, 0))

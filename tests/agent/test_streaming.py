"""A pool read in chunks gives what the same pool in memory gives."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mgral_service.agent import streaming
from mgral_service.agent.policy import Policy, score, weights_of
from mgral_service.agent.reinforce import greedy
from mgral_service.agent.streaming import (
    Best,
    EmbeddingFile,
    Moments,
    Rows,
    Weights,
    lane_steps,
    select,
    standardised,
    walk_chunks,
)
from mgral_service.domain.arrays import Float32Array
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.value.transport import standardise


def pool_of(count: int, dimension: int = 5) -> Float32Array:
    """Columns of unlike mean and spread, the last one constant, some values not finite."""
    rng = np.random.default_rng(0)
    points = (rng.standard_normal((count, dimension)) * 3 + 10).astype(np.float32)
    points[:, -1] = 0.1
    points[rng.integers(count, size=3), rng.integers(dimension, size=3)] = [np.nan, np.inf, -np.inf]
    return points


def weights(lane: int, dimension: int = 5) -> Weights:
    return weights_of(Policy(dimension, torch.Generator().manual_seed(0)), lane)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two lanes, blocks of seven rows."""
    monkeypatch.setattr(streaming, "LANES", 2)
    monkeypatch.setattr(streaming, "_BLOCK", 7)


@pytest.fixture(params=["array", "map", "file"])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Rows:
    path = tmp_path / "pool.npy"
    np.save(path, pool_of(100))
    if request.param == "file":
        return EmbeddingFile.open(path)
    return np.asarray(np.load(path)) if request.param == "array" else np.load(path, mmap_mode="r")


@pytest.mark.usefixtures("small")
def test_a_pool_is_standardised_as_in_memory(pool: Rows) -> None:
    read = standardised(pool)
    wanted = standardise(pool_of(100).astype(np.float64))
    np.testing.assert_allclose(read[0:100], wanted, atol=1e-6)
    np.testing.assert_allclose(read[20:30], wanted[20:30], atol=1e-6)
    at = np.array([3, 50, 99])
    np.testing.assert_allclose(read.take(at, axis=0), wanted[at], atol=1e-6)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33, 100, 101])
@pytest.mark.parametrize("lane", [0, 1, 4, 7, 16, 1000])
def test_scores_are_those_of_one_walk_in_memory(lane: int, count: int) -> None:
    points = standardise(pool_of(count).astype(np.float64))
    parts = list(walk_chunks(weights(lane), points))
    streamed = np.concatenate([scores for _, scores in parts])
    np.testing.assert_allclose(streamed, score(weights(lane), points), atol=1e-6)
    assert [start for start, _ in parts] == list(range(0, count, 2 * lane_steps(count, lane)))


@pytest.mark.usefixtures("small")
def test_the_best_of_a_file_are_the_best_in_memory(pool: Rows) -> None:
    best = select(weights(8), standardised(pool), 10)
    scores = score(weights(8), standardise(pool_of(100).astype(np.float64)))
    np.testing.assert_array_equal(best.positions, greedy(scores, 10))
    np.testing.assert_allclose(best.scores, scores[best.positions], atol=1e-6)


def test_moments_of_parts_add_up_to_those_of_the_whole() -> None:
    points = pool_of(60).astype(np.float64)
    whole = Moments.of(points)
    parts = Moments.of(points[40:]) + (Moments.of(points[:40]) + Moments.of(points[:0]))
    for name in ("count", "mean", "square"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12)


@pytest.mark.parametrize("size", [0, 1, 7, 30, 100])
def test_the_running_best_are_those_of_a_full_sort_with_ties_by_position(size: int) -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(6, size=60).astype(np.float64)
    best = Best(size)
    for part in rng.permutation(60).reshape(12, 5):
        best.add(part, scores[part])
    wanted = greedy(scores, size)
    np.testing.assert_array_equal(best.positions, wanted)
    np.testing.assert_array_equal(best.scores, scores[wanted])


def test_an_empty_pool_has_no_best() -> None:
    best = select(weights(4), standardised(np.zeros((0, 5), np.float32)), 3)
    assert len(best.positions) == 0


@pytest.mark.parametrize(
    "content", [np.zeros(4), np.zeros((2, 2), np.int64), np.asfortranarray(np.zeros((3, 2)))]
)
def test_a_file_that_is_no_matrix_of_floats_is_refused(
    tmp_path: Path, content: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    path = tmp_path / "pool.npy"
    np.save(path, content)
    with pytest.raises(InvalidInput, match=r"pool\.npy.*must hold a matrix"):
        EmbeddingFile.open(path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pool.npy"
    path.write_bytes(b"none")
    with pytest.raises(InvalidInput, match=r"cannot be read as \.npy"):
        EmbeddingFile.open(path)

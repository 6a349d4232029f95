"""The benchmark of large pools runs and gives its figures."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import million_pool
from benchmarks.lib.harness import Options
from mgral_service.domain.specs import AgentSpec


def test_every_figure_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(million_pool, "QUICK_IMAGES", 2000)
    monkeypatch.setattr(million_pool, "TRAINED", 100)
    monkeypatch.setattr(million_pool, "AGENT", AgentSpec(iterations=1))
    monkeypatch.setattr(million_pool, "CLUSTERS", 4)
    figures = million_pool.measure(Options(quick=True, device="cpu"))
    assert figures["growth"] == figures["seconds"] / figures["small_seconds"]
    assert 0 < figures["peak_gb"] < 20
    assert 0 < figures["hierarchy_overlap"] <= 1
    assert 0 <= figures["order_overlap"] <= 1
    assert (figures["images"], figures["budget"]) == (2000, 20)
    assert figures["hierarchy_seconds"] > 0


def test_the_pool_is_the_same_each_time_and_rectified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(million_pool, "CHUNK", 128)
    first = million_pool.write_pool(tmp_path / "a.npy", 300)[:300]
    np.testing.assert_array_equal(first, np.load(tmp_path / "a.npy"))
    np.testing.assert_array_equal(first, million_pool.write_pool(tmp_path / "b.npy", 300)[:300])
    assert first.shape == (300, million_pool.DIMENSION)
    assert first.dtype == np.float32
    assert first.min() == 0
    assert 0.2 < (first == 0).mean() < 0.8


def test_backwards_is_the_pool_from_its_end() -> None:
    points = np.arange(10.0).reshape(5, 2)
    turned = million_pool.Backwards(points)
    np.testing.assert_array_equal(turned[1:3], points[::-1][1:3])
    np.testing.assert_array_equal(turned.take(np.array([0, 4]), axis=0), points[[4, 0]])


def test_overlap_is_a_share_of_the_reference() -> None:
    assert million_pool.overlap(np.array([1, 2, 3, 4]), np.array([4, 9, 1, 0])) == 0.5

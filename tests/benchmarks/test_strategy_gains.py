import pytest

from benchmarks.strategy_gains import Batch, figures_of
from mgral_service.strategies import CLASSICAL


def found(world: str, gained: list[float]) -> dict[Batch, float]:
    """Two parts a seed, of different levels, with two uniform batches each."""
    scored = {}
    for seed, gain in enumerate(gained):
        for part, level in enumerate((0.3, 0.5)):
            for strategy in CLASSICAL:
                more = gain if strategy == "coreset" else 0.0
                scored[Batch(world, seed, part, strategy, 0)] = level + more
            scored[Batch(world, seed, part, "uniform", 0)] = level - 0.01
            scored[Batch(world, seed, part, "uniform", 1)] = level + 0.01
    return scored


def test_gains_are_over_the_uniform_batches_of_the_same_part_and_worlds_count_alike() -> None:
    told = figures_of(found("a", [0.02, 0.04]) | found("b", [-0.01, 0.0]), ("a", "b"))
    assert told["a_coreset"] == pytest.approx(0.03)
    assert told["b_coreset"] == pytest.approx(-0.005)
    assert told["mean_coreset"] == pytest.approx(0.0125)
    assert told["mean_coreset_error"] == pytest.approx((0.01**2 + 0.005**2) ** 0.5 / 2)
    assert told["a_entropy"] == pytest.approx(0.0)
    assert "mean_uniform" not in told


def test_one_seed_has_no_error() -> None:
    assert "mean_coreset_error" not in figures_of(found("a", [0.02]), ("a",))

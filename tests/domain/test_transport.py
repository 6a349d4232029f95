from __future__ import annotations

import numpy as np
import ot
import pytest

from mgral_service.domain import transport
from mgral_service.domain.arrays import FloatArray


def cloud(count: int, dimension: int = 6, seed: int = 0) -> FloatArray:
    return np.random.default_rng(seed).standard_normal((count, dimension))


def test_standardised_columns_have_mean_zero_and_spread_one() -> None:
    points = transport.standardise(cloud(50) * 7 + 3)
    assert points.mean(axis=0) == pytest.approx(0)
    assert points.std(axis=0) == pytest.approx(1)


def test_a_constant_column_becomes_zero_and_nan_the_mean_of_its_column() -> None:
    raw = np.array([[5.0, 1.0, np.nan], [5.0, 3.0, np.nan], [5.0, np.nan, np.inf]])
    expected = [[0, -1, 0], [0, 1, 0], [0, 0, 0]]
    points = transport.standardise(raw)
    assert np.sign(points).tolist() == expected
    assert np.isfinite(points).all()
    assert np.isnan(raw[0, 2])


def test_directions_are_unit_and_fixed_ones_never_change() -> None:
    along = transport.directions(5, 9, np.random.default_rng(1))
    assert np.linalg.norm(along, axis=1) == pytest.approx(1)
    fixed = transport.fixed_directions(2)
    assert fixed.shape == (transport.DIRECTIONS, 2)
    assert fixed is transport.fixed_directions(2)
    assert fixed[0] == pytest.approx([-0.67438, 0.73839], abs=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        fixed[0, 0] = 1.0


def test_quantiles_of_four_numbers_at_two_levels_are_their_quartile_midpoints() -> None:
    projected = np.array([[4.0], [1.0], [3.0], [2.0]])
    assert transport.quantiles(projected, 2).tolist() == [1.5, 3.5]


def test_a_batch_lies_at_no_distance_from_its_permutation() -> None:
    points = cloud(40)
    batch = np.arange(20)
    first = transport.batch_sketch(points, batch)
    second = transport.batch_sketch(points, batch[::-1])
    assert first.shape == (transport.DIRECTIONS * transport.LEVELS,)
    assert transport.sliced_distance(first, second) == 0


def test_a_shift_moves_the_sketch_by_its_mean_length_along_the_directions() -> None:
    points, shift = cloud(30), np.array([2.0, 0, 0, 0, 0, 0])
    along = transport.fixed_directions(6)
    moved = transport.sliced_distance(
        transport.sketch(points, along), transport.sketch(points + shift, along)
    )
    assert moved == pytest.approx(np.abs(along @ shift).mean())


def test_sliced_distances_broadcast_over_records() -> None:
    sketches = cloud(7, 16)
    assert transport.sliced_distance(sketches[:3, None], sketches[None]).shape == (3, 7)


@pytest.mark.parametrize(("first", "second"), [(12, 12), (9, 6), (1, 5)])
def test_exact_distance_equals_pot(first: int, second: int) -> None:
    a, b = cloud(first), cloud(second, seed=1) + 0.5
    reference = ot.emd2(ot.unif(first), ot.unif(second), ot.dist(a, b, metric="euclidean"))
    assert transport.exact_distance(a, b) == pytest.approx(reference, abs=1e-6)


def test_a_cost_that_is_not_finite_has_no_plan() -> None:
    with pytest.raises((ArithmeticError, ValueError)):
        transport.exact_distance(np.full((2, 1), np.nan), np.zeros((3, 1)))


def test_sliced_distance_ranks_shifts_like_the_exact_one() -> None:
    base = cloud(40)
    along = transport.fixed_directions(6)
    shifted = [base + 0.4 * step for step in range(4)]
    exact = [transport.exact_distance(base, one) for one in shifted]
    sliced = [
        float(
            transport.sliced_distance(transport.sketch(base, along), transport.sketch(one, along))
        )
        for one in shifted
    ]
    assert exact == sorted(exact)
    assert sliced == sorted(sliced)

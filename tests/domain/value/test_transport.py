from __future__ import annotations

import numpy as np
import pytest

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.value import transport


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
    projected = np.array([[4.0, 1.0, 3.0, 2.0]])
    assert transport.quantiles(projected, 2).tolist() == [1.5, 3.5]


def test_a_batch_lies_at_no_distance_from_its_permutation() -> None:
    points = cloud(40)
    batch = np.arange(20)
    first = transport.sketch(points[batch], transport.fixed_directions(6))
    second = transport.sketch(points[batch[::-1]], transport.fixed_directions(6))
    assert first.shape == (transport.DIRECTIONS * transport.LEVELS,)
    assert transport.sliced_distances(first[None], second[None]) == [[0]]


def test_a_shift_moves_the_sketch_by_its_mean_length_along_the_directions() -> None:
    points, shift = cloud(30), np.array([2.0, 0, 0, 0, 0, 0])
    along = transport.fixed_directions(6)
    moved = transport.sliced_distances(
        transport.sketch(points, along)[None], transport.sketch(points + shift, along)[None]
    )
    assert moved == pytest.approx(np.array([[np.abs(along @ shift).mean()]]))


def test_sketches_of_many_batches_are_those_of_each() -> None:
    points, batches = cloud(40), draws(40, 9, 3)
    projected = transport.fixed_directions(6) @ points.T
    together = transport.sketches(projected, batches)
    alone = np.stack(
        [transport.sketch(points[batch], transport.fixed_directions(6)) for batch in batches]
    )
    assert together == pytest.approx(alone, abs=1e-12)


def test_sliced_distances_are_mean_differences_of_each_batch_and_record() -> None:
    sketches = cloud(7, 16)
    distances = transport.sliced_distances(sketches[:3], sketches)
    assert distances.shape == (3, 7)
    assert distances[1, 4] == pytest.approx(np.abs(sketches[1] - sketches[4]).mean())


def draws(count: int, size: int, batches: int, seed: int = 0) -> list[IntArray]:
    rng = np.random.default_rng(seed)
    return [rng.choice(count, size, replace=False) for _ in range(batches)]


def by_pot(first: FloatArray, second: FloatArray) -> float:
    ot = pytest.importorskip("ot", reason="needs POT, the reference")
    masses = ot.unif(len(first)), ot.unif(len(second))
    return float(ot.emd2(*masses, ot.dist(first, second, metric="euclidean")))


@pytest.mark.parametrize(("first", "second"), [(12, 12), (90, 90), (9, 6), (1, 5), (1, 1)])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_exact_distances_equal_pot(first: int, second: int, scale: float) -> None:
    points = scale * transport.standardise(cloud(200))
    batches, records = draws(200, first, 2), draws(200, second, 3, seed=1)
    reference = [[by_pot(points[one], points[other]) for other in records] for one in batches]
    exact = transport.exact_distances(points, batches, records)
    assert exact == pytest.approx(np.array(reference), abs=1e-6 * scale)


def test_images_in_both_batches_stay_where_they_are() -> None:
    points = np.array([[0.0], [1.0], [2.0], [10.0]])
    chain = transport.exact_distances(points, [np.array([0, 1, 2])], [np.array([1, 2, 3])])
    assert chain == pytest.approx(np.array([[10 / 3]]))
    one = np.arange(3)
    assert transport.exact_distances(points, [one], [one[::-1]]) == [[0]]


def test_exact_distances_of_many_are_those_of_each_and_the_same_twice() -> None:
    points, batches, records = cloud(100), draws(100, 30, 3), draws(100, 30, 4, seed=1)
    together = transport.exact_distances(points, batches, records)
    alone = [
        [transport.exact_distances(points, [one], [other])[0, 0] for other in records]
        for one in batches
    ]
    assert together == pytest.approx(np.array(alone), abs=1e-12)
    assert transport.exact_distances(points, batches, records).tolist() == together.tolist()


def test_records_that_do_not_fit_at_once_are_read_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    points, batches, records = cloud(100), draws(100, 30, 2), draws(100, 30, 5, seed=1)
    at_once = transport.exact_distances(points, batches, records)
    monkeypatch.setattr(transport, "_CELLS", 2 * 30 * 30)
    assert transport.exact_distances(points, batches, records) == pytest.approx(at_once, abs=1e-12)


def test_exact_pairs_are_the_distances_among_records() -> None:
    points, records = cloud(60), draws(60, 20, 4)
    pairs = transport.exact_pairs(points, records)
    assert pairs == pytest.approx(transport.exact_distances(points, records, records), abs=1e-9)
    assert (pairs == pairs.T).all()


@pytest.mark.parametrize("outlier", [1e3, 1e9])
def test_an_image_far_from_all_others_is_matched_all_the_same(outlier: float) -> None:
    points = cloud(40)
    points[3] += outlier
    points[25] -= outlier
    one, other = np.arange(20), np.arange(20, 40)
    exact = transport.exact_distances(points, [one], [other])[0, 0]
    assert exact == pytest.approx(by_pot(points[one], points[other]), rel=1e-9)


def test_coinciding_images_are_at_no_distance() -> None:
    points = np.tile(cloud(1), (8, 1))
    assert transport.exact_distances(points, [np.arange(4)], [np.arange(4, 8)]) == [[0]]


@pytest.mark.parametrize("size", [2, 3])
def test_a_distance_that_is_not_finite_has_no_plan(size: int) -> None:
    points = np.zeros((6, 1))
    points[:2] = np.nan
    with pytest.raises((ArithmeticError, ValueError)):
        transport.exact_distances(points, [np.arange(2)], [np.arange(3, 3 + size)])


def test_sliced_distances_rank_shifts_like_the_exact_ones() -> None:
    base = cloud(40)
    points = np.concatenate([base, *(base + 0.4 * step for step in range(1, 4))])
    batches = list(np.arange(160).reshape(4, 40))
    projected = transport.fixed_directions(6) @ points.T
    exact = transport.exact_distances(points, batches[:1], batches)[0].tolist()
    sketches = transport.sketches(projected, batches)
    sliced = transport.sliced_distances(sketches[:1], sketches)[0].tolist()
    assert exact == sorted(exact)
    assert sliced == sorted(sliced)
    assert exact[1] > 0 < sliced[1]

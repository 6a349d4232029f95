"""Curves broken off: points on a - b / t, and what is no such curve."""

import numpy as np
import pytest

from mgral_service.domain.curve import extrapolated


def at_40(steps: list[float], maps: list[float]) -> float:
    return extrapolated(np.array(steps), np.array(maps), 40.0)


def test_a_curve_of_the_right_shape_is_continued() -> None:
    steps = [10.0, 15.0, 20.0]
    assert at_40(steps, [0.5 - 2 / step for step in steps]) == pytest.approx(0.45)
    assert at_40(steps[:2], [0.5 - 2 / step for step in steps[:2]]) == pytest.approx(0.45)


def test_points_beside_the_curve_are_fitted_by_least_squares() -> None:
    # over 1/t = .1, .05, .025 the best line is .55 - 30/7 (1/t)
    assert at_40([10, 20, 40], [0.1, 0.4, 0.4]) == pytest.approx(0.55 - 30 / 7 / 40)


def test_a_flat_curve_stays_and_a_falling_one_ends_at_its_mean() -> None:
    assert at_40([10, 20], [0.3, 0.3]) == pytest.approx(0.3)
    assert at_40([10, 20], [0.4, 0.2]) == pytest.approx(0.3)


def test_one_point_is_all_there_is_to_say() -> None:
    assert at_40([10], [0.25]) == 0.25


def test_it_stays_a_fraction() -> None:
    assert at_40([10, 20], [0.1, 0.8]) == 1.0
    assert at_40([10, 20], [0.0, 0.0]) == 0.0


def test_the_end_of_the_run_gives_the_fit_there() -> None:
    assert extrapolated(np.array([10.0, 20.0]), np.array([0.3, 0.4]), 20.0) == pytest.approx(0.4)

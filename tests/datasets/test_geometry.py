from __future__ import annotations

import math

import pytest

from mgral_service.datasets.geometry import fit_box


def test_a_box_inside_stays_as_it_is() -> None:
    fitted, problem = fit_box((1.5, 2.0, 40.0, 30.0), 40, 30)
    assert fitted == (1.5, 2.0, 40.0, 30.0)
    assert problem is None


def test_a_box_partly_outside_is_clipped() -> None:
    fitted, problem = fit_box((-5.0, 10.0, 45.0, 20.0), 40, 30)
    assert fitted == (0.0, 10.0, 40.0, 20.0)
    assert problem is not None
    assert "clipped" in problem


def test_a_rounding_error_is_no_repair() -> None:
    fitted, problem = fit_box((0.1, 0.0, 40.0 + 1e-13, 30.0), 40, 30)
    assert fitted == (0.1, 0.0, 40.0, 30.0)
    assert problem is None


@pytest.mark.parametrize(
    ("box", "word"),
    [
        ((10.0, 10.0, 10.0, 20.0), "zero"),
        ((20.0, 10.0, 10.0, 20.0), "negative"),
        ((40.0, 0.0, 50.0, 10.0), "outside"),
        ((-20.0, -20.0, -1.0, -1.0), "outside"),
        ((math.nan, 0.0, 1.0, 1.0), "finite"),
        ((0.0, 0.0, math.inf, 1.0), "finite"),
        ((0.2, 0.3, 0.8, 0.9), "normalised"),
    ],
)
def test_a_wrong_box_is_refused(box: tuple[float, float, float, float], word: str) -> None:
    fitted, problem = fit_box(box, 40, 30)
    assert fitted is None
    assert problem is not None
    assert word in problem


def test_a_box_of_a_one_pixel_image_is_not_called_normalised() -> None:
    assert fit_box((0.0, 0.0, 1.0, 1.0), 1, 1)[0] == (0.0, 0.0, 1.0, 1.0)

"""Numbers of learning curves that one can check by hand, and what is written of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lib.curves import (
    Curves,
    Point,
    area,
    balance,
    cut,
    draw,
    interval,
    jaccard,
    reached,
    resampled,
    table,
)
from mgral_service.domain.report import CandidateGain

X, Y = np.array([10.0, 20.0, 40.0]), np.array([0.0, 0.2, 0.4])
GAIN = CandidateGain("better", 4, 0.02, 0.01, 0.0, 0.01, 0.01, 0.007)
BLANK = Point("toy", "uniform", 0, 0, 10, 30, 0.1, 0.05, 0.0, 0, (), (20, 10), "")


def run(
    strategy: str,
    ap50: list[float],
    boxes: list[int],
    seed: int = 0,
    batches: tuple[tuple[str, ...], ...] = (("a", "b"), ("c", "d")),
    counts: tuple[int, int] = (4, 4),
) -> list[Point]:
    """10 images and 10 more a cycle; a cycle of choosing takes 2 seconds and 3 trainings."""
    first = replace(BLANK, strategy=strategy, seed=seed, ap50=ap50[0], boxes=boxes[0])
    return [first] + [
        replace(
            first,
            cycle=cycle,
            images=10 + 10 * cycle,
            boxes=boxes[cycle],
            ap50=ap50[cycle],
            seconds=2.0,
            trainings=3,
            batch=batches[cycle - 1],
            counts=counts,
            chosen_by=strategy,
            candidates=(GAIN,) if strategy == "better" else (),
        )
        for cycle in range(1, len(ap50))
    ]


def test_the_area_is_the_mean_height_under_straight_lines() -> None:
    assert area(X, Y) == pytest.approx((10 * 0.1 + 20 * 0.3) / 30)


def test_a_curve_is_cut_between_its_points() -> None:
    x, y = cut(X, Y, 30.0)
    assert x.tolist() == [10.0, 20.0, 30.0]
    assert y == pytest.approx([0.0, 0.2, 0.3])
    assert cut(X, Y, 40.0)[0].tolist() == X.tolist()


def test_a_level_is_reached_on_the_line_between_two_points() -> None:
    assert reached(X, Y, 0.3) == pytest.approx(30.0)
    assert reached(X, Y, 0.0) == 10.0
    assert reached(X, Y, 0.41) is None
    assert reached(X, np.array([0.0, 0.4, 0.2]), 0.2) == pytest.approx(15.0)  # the first time


def test_balance_is_entropy_by_its_maximum() -> None:
    assert balance(np.array([5, 5])) == pytest.approx(1.0)
    assert balance(np.array([7, 0])) == 0.0
    assert balance(np.array([1, 1, 0, 0])) == pytest.approx(0.5)
    assert balance(np.array([0, 0])) == 0.0


def test_overlap_is_shared_images_by_all_images() -> None:
    assert jaccard("abc", "bcd") == 0.5
    assert jaccard("ab", "cd") == 0.0


def test_an_interval_of_equal_seeds_has_no_width_and_of_two_spans_them() -> None:
    assert interval(np.array([0.25, 0.25, 0.25])).low == 0.25
    found = interval(np.array([0.0, 1.0]))
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)


def test_the_same_seeds_are_drawn_for_every_strategy() -> None:
    some = np.array([0.1, 0.5, 0.2])
    assert resampled(some + 0.3) == pytest.approx(resampled(some) + 0.3)


def test_a_gain_is_a_difference_within_the_seed() -> None:
    points = [
        *run("uniform", [0.1, 0.1, 0.1], [30, 40, 50]),
        *run("uniform", [0.5, 0.5, 0.5], [30, 40, 50], seed=1),
        *run("other", [0.2, 0.2, 0.2], [30, 40, 50]),
        *run("other", [0.6, 0.6, 0.6], [30, 40, 50], seed=1),
    ]
    found = Curves(points).summary("other").gain
    assert [found.mean, found.low, found.high] == pytest.approx([0.1, 0.1, 0.1])


def test_areas_by_boxes_end_where_the_strategy_with_the_fewest_boxes_ends() -> None:
    points = [
        *run("uniform", [0.0, 0.2, 0.4], [0, 10, 20]),
        *run("greedy", [0.0, 0.2, 0.4], [0, 20, 40]),
    ]
    curves = Curves(points)
    assert curves.areas("greedy") == pytest.approx(curves.areas("uniform"))
    assert curves.areas_by_boxes("uniform") == pytest.approx([0.2])
    assert curves.areas_by_boxes("greedy") == pytest.approx([0.1])


def test_a_summary_tells_what_it_takes_to_reach_the_reference() -> None:
    points = [
        *run("uniform", [0.0, 0.1, 0.2], [0, 10, 20], counts=(8, 0)),
        *run("better", [0.0, 0.4, 0.5], [0, 40, 80], batches=(("a", "x"), ("y", "z"))),
        *run("worse", [0.0, 0.1, 0.1], [0, 10, 20]),
    ]
    curves = Curves(points)
    better, worse = curves.summary("better"), curves.summary("worse")
    assert better.images_to_match == pytest.approx(15.0)
    assert better.boxes_to_match == pytest.approx(20.0)
    assert worse.images_to_match is None
    assert better.balance == pytest.approx(1.0)
    assert curves.summary("uniform").balance == 0.0
    assert better.overlap == pytest.approx((1 / 3 + 0) / 2)
    assert worse.overlap == 1.0
    assert (better.seconds, better.trainings) == (2.0, 6.0)
    assert better.chosen_by == {"better": 2}
    assert better.measured_share == pytest.approx(0.5)
    assert worse.measured_share is None
    assert "toy_worse_images_to_match" not in worse.figures("toy_worse")


def test_seeds_that_a_strategy_has_not_finished_do_not_count() -> None:
    points = [
        *run("uniform", [0.1, 0.2, 0.3], [30, 40, 50]),
        *run("uniform", [0.9, 0.9, 0.9], [30, 40, 50], seed=1),
        *run("other", [0.1, 0.2, 0.3], [30, 40, 50]),
        *run("other", [0.1, 0.2], [30, 40], seed=1),
    ]
    curves = Curves(points)
    assert curves.seeds == (0,)
    assert curves.summary("uniform").last == pytest.approx(0.3)


def test_curves_need_the_reference() -> None:
    with pytest.raises(ValueError, match="uniform"):
        Curves(run("other", [0.1, 0.2, 0.3], [30, 40, 50]))


def test_a_figure_and_a_table_are_written(tmp_path: Path) -> None:
    points = [
        *run("uniform", [0.0, 0.1, 0.2], [0, 10, 20]),
        *run("other", [0.0, 0.1, 0.1], [0, 10, 20], counts=(9, 0)),
    ]
    curves = Curves(points)
    draw(curves, "toy", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    lines = table(curves).splitlines()
    assert lines[2].startswith("| uniform | 0.2000 | 0.1000 |")
    assert "not reached" in lines[3]
    assert len({line.count("|") for line in lines[:4]}) == 1

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import learned_gains
from benchmarks.compare import World
from benchmarks.gains import SEEDS, setting
from benchmarks.harness import Options
from benchmarks.learned_gains import Found, figures_of, joined


def found(world: str, seed: int, gain: float, chosen: str = "agent") -> Found:
    scores = {"uniform": [0.3, 0.5], "ridge": [0.3 + gain, 0.5 + gain], "agent": [0.3, 0.5]}
    return Found("s", world, seed, chosen, 0.2, 0.1, 0.4, scores)


def test_joined_orders_go_by_mean_rank_and_keep_every_image() -> None:
    assert joined(["abcd", "dbca"]) == ("b", "a", "d", "c")
    assert joined(["cab"]) == ("c", "a", "b")


def test_gains_are_over_uniform_and_worlds_count_alike() -> None:
    some = [found("a", 0, 0.02), found("a", 1, 0.04, "ridge"), found("b", 0, -0.01)]
    told = figures_of([*some, found("b", 1, 0.0)])
    assert told["a_ridge"] == pytest.approx(0.03)
    assert told["mean_ridge"] == pytest.approx(0.0125)
    assert told["mean_ridge_error"] == pytest.approx((0.01**2 + 0.005**2) ** 0.5 / 2)
    assert told["mean_agent"] == pytest.approx(0.0)
    assert (told["chosen_agent"], told["chosen_ridge"]) == (3.0, 1.0)
    assert "mean_uniform" not in told


def test_a_pool_that_is_kept_is_not_measured_again_unless_its_world_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def each_pool(
        work: object, todo: Sequence[tuple[World, int]], device: str
    ) -> Iterator[tuple[int, Found]]:
        asked.append(len(todo))
        for at, (world, seed) in enumerate(todo):
            made = found(world.name, seed, 0.02)
            yield at, replace(made, setting=setting(world, device))

    monkeypatch.setattr(learned_gains, "each_pool", each_pool)
    own = {"world": ["digits"], "kept": tmp_path / "gains.jsonl"}
    for quick in (True, True, False, False):
        figures = learned_gains.measure(Options(quick, "cpu", own))
        assert figures["mean_ridge"] == pytest.approx(0.02)
    assert asked == [1, 0, len(SEEDS), 0]

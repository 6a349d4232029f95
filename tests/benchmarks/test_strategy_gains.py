import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import strategy_gains
from benchmarks.compare import World
from benchmarks.gains import SEEDS
from benchmarks.harness import Options
from benchmarks.strategy_gains import HALVES, PARTS, Batch, figures_of, rules
from mgral_service.domain.design import CHEAP
from mgral_service.strategies import CLASSICAL


def found(world: str, gained: list[float]) -> dict[Batch, float]:
    """Two parts a seed, of different levels, with two uniform batches each."""
    scored = {}
    for seed, gain in enumerate(gained):
        for part, level in enumerate((0.3, 0.5)):
            for strategy in CLASSICAL:
                more = gain if strategy == "coreset" else 0.0
                scored[Batch("s", world, seed, part, strategy, 0)] = level + more
            scored[Batch("s", world, seed, part, "uniform", 0)] = level - 0.01
            scored[Batch("s", world, seed, part, "uniform", 1)] = level + 0.01
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


def test_a_rule_gains_what_the_strategy_gains_that_trials_choose_if_it_is_sure_enough() -> None:
    """Coreset gains 0.02 in the pool, and in trials is ahead by more than two errors, not three."""
    scored = found("a", [0.02])
    for part in range(PARTS, PARTS + HALVES):
        for at, strategy in enumerate((*CHEAP, "uniform")):
            luck = 0.02 * (-1) ** (at + part) + (0.035 if strategy == "coreset" else 0.0)
            scored[Batch("s", "a", 0, part, strategy, 0)] = 0.3 + luck
    assert rules(scored, ("a",)) == pytest.approx(
        {"rule_0": 0.02, "rule_1": 0.02, "rule_2": 0.02, "rule_3": 0.0}
    )


def test_what_is_kept_is_not_trained_again_unless_the_setting_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def trained(
        jobs: Sequence[tuple[World, list[Batch]]], device: str, kept: Path
    ) -> Iterator[tuple[Batch, float]]:
        batches = [one for _, some in jobs for one in some]
        asked.append(len(batches))
        with kept.open("a", encoding="utf-8") as file:
            for one in batches:
                file.write(json.dumps({**asdict(one), "ap50": 0.5}) + "\n")
                yield one, 0.5

    monkeypatch.setattr(strategy_gains, "train", trained)
    own = {"world": ["digits"], "kept": tmp_path / "gains.jsonl"}
    for quick in (True, True, False, False):
        assert strategy_gains.measure(Options(quick, "cpu", own))["mean_coreset"] == 0.0
    chosen = len(CLASSICAL) - 1 + 3
    tried = len(CHEAP) + 2
    every = PARTS * chosen + HALVES * tried
    assert asked == [every, 0, len(SEEDS) * every, 0]

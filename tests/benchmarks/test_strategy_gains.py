import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import strategy_gains
from benchmarks.compare import World
from benchmarks.lib.harness import Options
from benchmarks.strategy_gains import PARTS, SEEDS, UNIFORMS, Batch, figures_of
from mgral_service.strategies import CLASSICAL


def measured(world: str, gains: list[float]) -> dict[Batch, float]:
    """Two parts a seed, of different levels, with two uniform batches each."""
    scored = {}
    for seed, gain in enumerate(gains):
        for part, level in enumerate((0.3, 0.5)):
            for strategy in CLASSICAL:
                more = gain if strategy == "coreset" else 0.0
                scored[Batch("s", world, seed, part, strategy, 0)] = level + more
            scored[Batch("s", world, seed, part, "uniform", 0)] = level - 0.01
            scored[Batch("s", world, seed, part, "uniform", 1)] = level + 0.01
    return scored


def test_gains_are_over_the_uniform_batches_of_the_same_part_and_worlds_count_alike() -> None:
    figures = figures_of(measured("a", [0.02, 0.04]) | measured("b", [-0.01, 0.0]), ("a", "b"))
    assert figures["a_coreset"] == pytest.approx(0.03)
    assert figures["b_coreset"] == pytest.approx(-0.005)
    assert figures["mean_coreset"] == pytest.approx(0.0125)
    assert figures["mean_coreset_error"] == pytest.approx((0.01**2 + 0.005**2) ** 0.5 / 2)
    assert figures["a_entropy"] == pytest.approx(0.0)
    assert "mean_uniform" not in figures


def test_one_seed_has_no_error() -> None:
    assert "mean_coreset_error" not in figures_of(measured("a", [0.02]), ("a",))


def test_what_is_stored_is_not_trained_again_unless_the_setting_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def trained(
        jobs: Sequence[tuple[World, list[Batch]]], device: str, file: Path
    ) -> Iterator[tuple[Batch, float]]:
        batches = [batch for _, missing in jobs for batch in missing]
        asked.append(len(batches))
        with file.open("a", encoding="utf-8") as lines:
            for batch in batches:
                lines.write(json.dumps({**asdict(batch), "ap50": 0.5}) + "\n")
                yield batch, 0.5

    monkeypatch.setattr(strategy_gains, "train", trained)
    own = {"world": ["digits"], "kept": tmp_path / "gains.jsonl"}
    for quick in (True, True, False, False):
        assert strategy_gains.measure(Options(quick, "cpu", own))["mean_coreset"] == 0.0
    every = PARTS * (len(CLASSICAL) - 1 + UNIFORMS)
    assert asked == [every, 0, len(SEEDS) * every, 0]

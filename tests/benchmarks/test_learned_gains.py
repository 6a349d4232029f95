from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from benchmarks import learned_gains
from benchmarks.compare import World
from benchmarks.gains import SEEDS, setting
from benchmarks.harness import Options
from benchmarks.learned_gains import Found, Memory, figures_of, joined, read_otherwise
from mgral_service import cycle
from mgral_service.cycle import Workbench
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.specs import AgentSpec, CycleSpec, TableSpec
from mgral_service.strategies import STRATEGIES
from tests.doubles import CLASSES, FakeDetector, FakeProxies, ids


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


def test_another_value_model_chooses_from_the_same_records() -> None:
    names = ids(90)
    split = PoolSplit(dict.fromkeys(names[:30], 0), names[40:], names[30:40])
    table = TableSpec(records=20, source="hindsight", online=4)
    agent = AgentSpec(iterations=12, draws=4)

    def bench(model: Literal["ridge", "gp"], proxies: FakeProxies) -> Workbench:
        spec = CycleSpec("toy", 6, table=replace(table, value_model=model), agent=agent)
        known = Annotations.empty(names[:40])
        return Workbench(
            model,
            spec,
            split,
            CLASSES,
            known,
            FakeDetector(),
            proxies,
            lambda name: STRATEGIES[name](),
        )

    first, none = FakeProxies(), FakeProxies(dies_after=0)
    told = Memory()
    cycle.run(bench("ridge", first), told)
    assert len(told.records()) == len(first.trained) >= 22
    other = read_otherwise(told, bench("gp", none))
    report = other.report()
    assert report is not None
    assert report.evidence is not None
    assert [one.index for one in report.evidence.table] == sorted(first.trained)
    assert "gp_and_entropy_root.order" in other.agent
    assert "ridge_and_entropy_root.order" in told.agent

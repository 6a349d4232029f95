"""What "as printed" means, and that a comparison goes on where it stopped."""

import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import compare
from benchmarks.compare import (
    WORLDS,
    PointStore,
    World,
    measure_again,
    own_flags,
    paper_spec,
    play,
    write,
)
from benchmarks.lib.curves import Point
from benchmarks.lib.runs import Job, again, step
from mgral_service.domain.ports import Weights
from mgral_service.domain.specs import AgentSpec, CycleSpec, DetectorSpec, TableSpec

TINY = World("digits", 6, 4, 2, 2)


Played = Future[tuple[Point, Weights]]


class Inline:
    """Does a task at once, without training: its AP50 grows by a tenth a cycle."""

    def __init__(self, dies_after: int = 1000) -> None:
        self.done: list[tuple[int, int, str]] = []
        self.carried: list[bool] = []
        self._dies_after = dies_after

    def __call__(self, task: object, job: Job, weights: Weights | None) -> Played:
        assert task is step
        future = Played()
        if len(self.done) == self._dies_after:
            future.set_exception(KeyboardInterrupt())
            return future
        self.done.append((job.spec.seed, job.cycle, job.strategy if job.cycle else ""))
        self.carried.append(weights is not None)
        images = 6 + 4 * job.cycle
        batch = tuple(f"{job.strategy}{len(job.bought)}{at}" for at in range(4 * (job.cycle > 0)))
        point = Point(
            job.world, job.strategy, job.spec.seed, job.cycle, images, 3 * images,
            0.1 + 0.1 * job.cycle, 0.05, 1.0, 0, batch, (6, 6), job.strategy,
        )  # fmt: skip
        future.set_result((point, {}))
        return future


def played(
    submit: Inline, file: Path, strategies: Sequence[str] = ("uniform", "coreset")
) -> list[Point]:
    return [point for _, point in play(TINY, strategies, "cpu", submit, 1, PointStore(file))]


def test_the_paper_s_method_has_the_world_s_detector_and_proportions() -> None:
    world = WORLDS["digits"]
    spec = paper_spec(world.job("mgral", 0, "cpu").spec)
    assert (spec.method, spec.choice) == ("paper", "agent")
    assert spec.detector == world.detector
    assert spec.table.records == world.table.records // 8
    assert spec.table.objective == "isd"
    assert spec.agent.iterations == world.agent.iterations


def test_the_paper_s_method_on_a_pyramid_is_sed() -> None:
    detector = DetectorSpec("retinanet", freeze_backbone=False)
    assert paper_spec(CycleSpec("x", 2, detector=detector)).table.objective == "sed"


def test_only_the_paper_s_method_is_as_printed() -> None:
    world = WORLDS["vehicles"]
    assert world.job("mgral", 1, "cpu").spec.table == world.table
    assert world.job("mgral-paper", 1, "cpu").spec.table.advanced.value_model == "idw"
    assert world.job("entropy", 1, "cpu").spec.strategy == "entropy"


def test_the_start_of_a_seed_is_common_to_all_strategies() -> None:
    keys = {TINY.job(name, 0, "cpu").key for name in compare.COMPARED}
    assert len(keys) == 1
    assert TINY.job("uniform", 1, "cpu").key not in keys


def test_a_cycle_is_known_by_all_that_makes_its_result() -> None:
    job = replace(TINY.job("mgral", 0, "cpu"), cycle=1)
    other = replace(TINY, agent=AgentSpec(iterations=9))
    changed = [
        replace(job, cycle=2),
        replace(job, device="cuda"),
        replace(TINY.job("mgral-paper", 0, "cpu"), cycle=1),
        replace(other.job("mgral", 0, "cpu"), cycle=1),
        replace(replace(TINY, initial=7).job("mgral", 0, "cpu"), cycle=1),
    ]
    assert len({job.key, *(one.key for one in changed)}) == 6


def test_settings_of_the_table_are_nothing_to_a_classical_strategy() -> None:
    other = replace(TINY, agent=AgentSpec(iterations=9), table=TableSpec(records=50, folds=5))
    cycles = [replace(one.job("entropy", 0, "cpu"), cycle=1) for one in (TINY, other)]
    assert cycles[0].key == cycles[1].key


def test_seeds_are_finished_one_after_the_other_and_each_start_is_fitted_once(
    tmp_path: Path,
) -> None:
    submit = Inline()
    points = played(submit, tmp_path / "kept.jsonl")
    assert submit.done[:5] == [
        (0, 0, ""),
        (0, 1, "uniform"),
        (0, 1, "coreset"),
        (0, 2, "uniform"),
        (0, 2, "coreset"),
    ]
    assert len(submit.done) == 10
    assert submit.carried == [cycle > 0 for _, cycle, _ in submit.done]
    assert [(one.strategy, one.seed, one.cycle) for one in points] == [
        (name, seed, cycle)
        for name in ("uniform", "coreset")
        for seed in (0, 1)
        for cycle in range(3)
    ]


def test_what_was_bought_is_handed_on(tmp_path: Path) -> None:
    points = played(Inline(), tmp_path / "kept.jsonl")
    (last,) = [one for one in points if one.strategy == "coreset" and one.seed + one.cycle == 3]
    assert last.batch[0] == "coreset10"


def test_an_interrupted_comparison_goes_on_and_a_finished_one_repeats_nothing(
    tmp_path: Path,
) -> None:
    file = tmp_path / "kept.jsonl"
    whole = played(Inline(), tmp_path / "other.jsonl")
    first, second, third = Inline(dies_after=4), Inline(), Inline()
    with pytest.raises(KeyboardInterrupt):
        played(first, file)
    with file.open("a") as torn:
        torn.write('{"key": "torn')
    file.write_text(file.read_text() + "\n")
    assert played(second, file) == whole
    assert len(first.done) + len(second.done) == 10
    assert second.done[0] == (0, 2, "coreset")
    assert second.carried[0] is False  # its weights were lost, so the detector is fitted again
    assert played(third, file) == whole
    assert third.done == []


def test_a_point_is_the_mean_of_so_many_detectors_each_trained_once(tmp_path: Path) -> None:
    file = tmp_path / "kept.jsonl"
    played = play(TINY, ("uniform", "coreset"), "cpu", Inline(), 1, PointStore(file))
    asked: list[int] = []

    def submit(task: object, job: Job, batch: Sequence[str], turn: int) -> "Future[float]":
        assert task is again
        asked.append(turn)
        future: Future[float] = Future()
        future.set_result(0.4 + turn)
        return future

    points = measure_again(played, 3, submit, PointStore(file))
    assert [one.more for one in points] == [(1.4, 2.4)] * len(played)
    assert points[0].mean_ap50 == pytest.approx((0.1 + 1.4 + 2.4) / 3)
    assert sorted(asked) == [1] * 10 + [2] * 10  # two starts, shared, and eight cycles
    assert measure_again(played, 2, submit, PointStore(file))[0].more == (1.4,)
    assert len(asked) == 20
    assert [one for _, one in play(TINY, ("uniform",), "cpu", Inline(0), 1, PointStore(file))]
    figures = write("digits", points, tmp_path / "digits")
    assert figures["digits_detectors"] == 3.0
    assert "the mean of 3 detectors" in (tmp_path / "digits/digits.md").read_text()


def test_more_cycles_start_from_fewer(tmp_path: Path) -> None:
    played(Inline(), tmp_path / "kept.jsonl")
    submit = Inline()
    longer = replace(TINY, cycles=3, seeds=1)
    play(longer, ("uniform",), "cpu", submit, 1, PointStore(tmp_path / "kept.jsonl"))
    assert submit.done == [(0, 3, "uniform")]


def test_figures_are_named_by_world_and_strategy(tmp_path: Path) -> None:
    points = played(Inline(), tmp_path / "kept.jsonl", ("uniform", "mgral-paper"))
    figures = write("digits", points, tmp_path / "digits")
    assert figures["digits_uniform_area"] == pytest.approx(0.2)
    assert figures["digits_mgral_paper_area_gain_low"] == 0.0
    assert (figures["digits_seeds"], figures["digits_cycles"]) == (2.0, 2.0)
    assert json.loads((tmp_path / "kept.jsonl").read_text().splitlines()[0])["world"] == "digits"


def test_flags_name_a_part_of_the_comparison() -> None:
    given = own_flags().parse_args(["--world", "digits", "--strategies", "mgral", "--seeds", "2"])
    assert (given.world, given.strategies) == (["digits"], ["mgral"])
    assert (given.seeds, given.cycles, given.local) == (2, None, False)

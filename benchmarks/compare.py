"""Learning curves of strategies: the product's own cycles from the same initial images, with the
same detector and paired seeds, scored on test images that no cycle ever reads.

A cycle of a run is one task: of Ray where it is installed, else of a process pool (`--local`). What
a task measured is stored in a file (`--kept`), so an interrupted comparison goes on, and a longer
one starts from a shorter one; delete it when the code of a strategy has changed.

"mgral" is the default method with a table of 48 proxies in 4 folds; "mgral-paper" the paper's, by
`domain/recipes.py`, with M and steps in proportion to the data. The paper's method scores proxies
on a quarter of the training images, which no strategy may choose. No setting is chosen on test
images. `--quick`: digits, 2 seeds, 1 cycle, trainings of 2 steps.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.lib.curves import REFERENCE, Curves, Point, draw, table
from benchmarks.lib.harness import HERE, OUT, Figures, Options, kept_lines, main
from benchmarks.lib.runs import Job, again, step
from mgral_service import codec
from mgral_service.domain.ports import Weights
from mgral_service.domain.recipes import completed
from mgral_service.domain.specs import AgentSpec, CycleSpec, DetectorSpec, TableSpec
from mgral_service.strategies import STRATEGIES

COMPARED = (
    REFERENCE,
    "entropy",
    "entropy_sum",
    "entropy_root",
    "entropy_max",
    "coreset",
    "entropy_coreset",
    "class_balance",
    "mgral",
    "mgral-paper",
)
TABLE = TableSpec(records=48, folds=4)


@dataclass(frozen=True, slots=True)
class World:
    """Data, and what every strategy finds there. scenes: of the generated data; cycles and seeds:
    unless told otherwise. table and agent: of "mgral".
    """

    name: str
    initial: int
    budget: int
    cycles: int
    seeds: int
    scenes: int = 600
    detector: DetectorSpec = field(default_factory=DetectorSpec)
    table: TableSpec = TABLE
    agent: AgentSpec = field(default_factory=lambda: AgentSpec(iterations=200))

    def job(self, strategy: str, seed: int, device: str) -> Job:
        """The first of a run."""
        spec = CycleSpec(self.name, self.budget, seed, strategy=strategy, detector=self.detector)
        if strategy.startswith("mgral"):
            spec = replace(spec, strategy="mgral", table=self.table, agent=self.agent)
        if strategy == "mgral-paper":
            spec = paper_spec(spec)
        return Job(self.name, self.scenes, self.initial, strategy, spec, device)

    @property
    def quick(self) -> World:
        return replace(
            self,
            cycles=1,
            seeds=2,
            scenes=96,
            detector=replace(self.detector, steps=2),
            table=replace(self.table, records=8, folds=2, steps=2),
            agent=replace(self.agent, iterations=5),
        )


WORLDS = {
    world.name: world
    for world in (
        World("digits", 40, 20, 4, 5),
        World("vehicles", 40, 40, 3, 3),
        World("bccd", 40, 20, 3, 2),
        World("chess_pieces", 40, 20, 3, 2),
    )
}
ASKED = ("digits", "vehicles")  # the others only serve to make rules on


def paper_spec(spec: CycleSpec) -> CycleSpec:
    """The paper's method (domain/recipes.py) with the spec's detector, M and steps in proportion to
    the data: M is an eighth of that of "mgral", as a proxy that trains from scratch with every view
    drawn anew takes about eight times as long, and iterations are those of "mgral".
    """
    given = {
        "dataset": spec.dataset,
        "budget": spec.budget,
        "seed": spec.seed,
        "metric": spec.metric,
        "method": "paper",
        "detector": codec.plain(spec.detector),
        "table": {
            "records": max(4, spec.table.records // 8),
            "steps": max(spec.table.steps, 2 * spec.detector.steps // 5),
        },
        "agent": {"iterations": spec.agent.iterations},
    }
    return codec.build(CycleSpec, completed(given))


# --- all tasks ----------------------------------------------------------------------------------

Submit = Callable[..., "Future[Any]"]
"""A task and what it is given."""


class PointStore:
    """Points in a file of JSON lines, by the key of their job.

    more  AP50 of further detectors, by Job.key_after and which one
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._points: dict[str, Point] = {}
        self.more: dict[tuple[str, int], float] = {}
        for line in kept_lines(file):
            key = line.pop("key")
            if "turn" in line:
                self.more[key, line["turn"]] = line["ap50"]
            else:
                self._points[key] = codec.build(Point, line)

    def get(self, job: Job) -> Point | None:
        point = self._points.get(job.key)
        return None if point is None else replace(point, strategy=job.strategy)

    def put(self, job: Job, point: Point) -> None:
        self._points[job.key] = point
        self._write({"key": job.key, **asdict(point)})

    def put_more(self, key: str, turn: int, ap50: float) -> None:
        self.more[key, turn] = ap50
        self._write({"key": key, "turn": turn, "ap50": ap50})

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def play(
    world: World,
    strategies: Sequence[str],
    device: str,
    submit: Submit,
    many: int,
    store: PointStore,
) -> list[tuple[Job, Point]]:
    """Every strategy with every seed, all cycles; `many` tasks at once, earlier seeds first, so
    that a comparison that is cut short has whole seeds.
    """
    played: list[tuple[Job, Point]] = []
    ready: list[tuple[Job, Weights | None]] = []
    waiting: dict[Future[tuple[Point, Weights]], Job] = {}

    def go_on(job: Job, point: Point, weights: Weights | None) -> None:
        """Take what is stored, and make ready what comes after it."""
        stored: Point | None = point
        while stored is not None:
            played.append((job, stored))
            if job.cycle == world.cycles:
                return
            job = job.after(stored)
            stored = store.get(job)
            weights = None if stored is not None else weights
        ready.append((job, weights))

    def open_runs(job: Job, point: Point, weights: Weights | None) -> None:
        for name in strategies:
            own = world.job(name, job.spec.seed, device)
            go_on(own, replace(point, strategy=name), weights)

    for seed in range(world.seeds):
        job = world.job(REFERENCE, seed, device)
        stored = store.get(job)
        if stored is None:
            ready.append((job, None))
        else:
            open_runs(job, stored, None)
    while ready or waiting:
        ready.sort(key=lambda item: (item[0].spec.seed, item[0].cycle))
        while ready and len(waiting) < many:
            job, weights = ready.pop(0)
            waiting[submit(step, job, weights)] = job
        for done in wait(waiting, return_when=FIRST_COMPLETED).done:
            job = waiting.pop(done)
            point, weights = done.result()
            store.put(job, point)
            _print(job, point)
            (go_on if job.cycle else open_runs)(job, point, weights)
    order = {name: position for position, name in enumerate(strategies)}
    return sorted(played, key=lambda item: (order[item[1].strategy], item[1].seed, item[1].cycle))


def measure_again(
    played: Sequence[tuple[Job, Point]], detectors: int, submit: Submit, store: PointStore
) -> list[Point]:
    """The points, each of so many detectors: one alone says little, as two batches of twenty that
    share all but two images can differ by .05.
    """
    turns = range(1, detectors)
    keys = [job.key_after(point.batch) for job, point in played]
    tasks = {
        (key, turn): (job, point.batch, turn)
        for turn in turns
        for key, (job, point) in zip(keys, played, strict=True)
        if (key, turn) not in store.more
    }
    waiting = {submit(again, *task): key for key, task in tasks.items()}
    for number, done in enumerate(as_completed(waiting), start=1):
        store.put_more(*waiting[done], done.result())
        end = "\n" * (number == len(waiting))
        print(f"\r{number} of {len(waiting)} further detectors", end=end, file=sys.stderr)
    return [
        replace(point, more=tuple(store.more[key, turn] for turn in turns))
        for key, (_, point) in zip(keys, played, strict=True)
    ]


def _print(job: Job, point: Point) -> None:
    who = job.strategy if job.cycle else "initial images"
    print(
        f"{job.world}, seed {job.spec.seed}, cycle {job.cycle}, {who}: AP50 {point.ap50:.4f}, "
        f"{point.trainings} proxies, {point.seconds:.0f} s",
        file=sys.stderr,
        flush=True,
    )


@contextmanager
def tasks(local: bool, device: str) -> Iterator[tuple[Submit, int]]:
    """Ray tasks of one processor, or processes of this machine; and how many at once."""
    if local or find_spec("ray") is None:
        many = (os.cpu_count() or 1) if device == "cpu" else 1
        pool = ProcessPoolExecutor(many, multiprocessing.get_context("spawn"))
        try:
            yield pool.submit, many
        finally:
            pool.shutdown(cancel_futures=True)
        return
    import ray

    from mgral_service.cluster.proxies import connect

    connect()
    resources = ray.cluster_resources()
    remote = cache(ray.remote(num_cpus=1, num_gpus=float(device == "cuda")))
    many = int(resources.get("CPU" if device == "cpu" else "GPU", 1))
    yield lambda task, *given: remote(task).remote(*given).future(), many


def own_flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    default = f"default: {' '.join(ASKED)}"
    parser.add_argument("--world", nargs="+", choices=tuple(WORLDS), help=default)
    parser.add_argument("--strategies", nargs="+", choices=(*STRATEGIES, "mgral-paper"))
    parser.add_argument("--seeds", type=int, help="how many")
    parser.add_argument("--cycles", type=int)
    parser.add_argument("--detectors", type=int, default=1, help="that a point is the mean of")
    parser.add_argument("--kept", type=Path, help="default: out/benchmarks/compare.jsonl")
    parser.add_argument("--local", action="store_true", help="processes in place of Ray tasks")
    return parser


def measure(options: Options) -> Figures:
    own = options.own
    names = own["world"] or (ASKED[:1] if options.quick else ASKED)
    strategies = tuple(dict.fromkeys((REFERENCE, *(own["strategies"] or COMPARED))))
    file = own["kept"] or OUT / "compare.jsonl"
    store = PointStore(file)
    figures: dict[str, float] = {}
    with tasks(own["local"], options.device) as (submit, many):
        for name in names:
            world = WORLDS[name].quick if options.quick else WORLDS[name]
            seeds, cycles = own["seeds"] or world.seeds, own["cycles"] or world.cycles
            world = replace(world, seeds=seeds, cycles=cycles)
            played = play(world, strategies, options.device, submit, many, store)
            points = measure_again(played, own["detectors"], submit, store)
            folder = (OUT if options.quick else HERE / "results") / "compare"
            figures |= write(name, points, folder)
    return figures


def write(name: str, points: Sequence[Point], folder: Path) -> dict[str, float]:
    """Curves, figure and table of a world into `folder`; its figures."""
    folder.mkdir(parents=True, exist_ok=True)
    curves = Curves(points)
    draw(curves, name, folder / f"{name}.png")
    (folder / f"{name}.md").write_text(table(curves), "utf-8")
    figures = {
        f"{name}_seeds": float(len(curves.seeds)),
        f"{name}_cycles": curves.cycles - 1.0,
        f"{name}_detectors": float(curves.detectors),
    }
    for summary in map(curves.summary, curves.strategies):
        figures |= summary.figures(f"{name}_{summary.strategy.replace('-', '_')}")
    return figures


def start(arguments: Sequence[str] | None = None) -> None:
    claim = "learning curves of strategies: area under AP50, gains over uniform, what they cost"
    main("compare", claim, measure, arguments, own_flags())


if __name__ == "__main__":
    start()

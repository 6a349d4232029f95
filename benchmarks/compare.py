"""Learning curves of strategies: the product's own cycles from the same initial images, with the
same detector and paired seeds, scored on test images that no cycle ever sees.

A cycle of a run is one task: of Ray where it is installed, else of a process pool (`--local`). What
a task found is kept in a file (`--kept`), so an interrupted comparison goes on, and a longer one
starts from a shorter one; delete what a strategy found when its code has changed. Curves, figure
and table lie beside it in `compare/WORLD`. `--kept benchmarks/results/compare.jsonl` goes on from
what the figures in README.md are of.

"mgral" runs as the demo does with four times its proxies, all of them hindsight (batches without
labels told next to nothing: `proxy_fidelity`, `surrogate_fidelity`), none measured again, and eight
on batches that its ridge and its agent choose; "mgral-paper" with every switch as printed. Both
score proxies on a quarter of the training images, with labels, which no strategy may choose. No
setting is chosen on test images of digits and vehicles; but rules were made on training images of
all four worlds, after failures that were seen on test images of vehicles (README.md). bccd and
chess_pieces serve no other purpose.
`--quick`: digits, 2 seeds, 1 cycle, trainings of 2 steps.
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

from benchmarks.curves import REFERENCE, Curves, Point, draw, table, write_csv
from benchmarks.harness import HERE, Figures, Options, kept_lines, main
from benchmarks.runs import Job, again, step
from mgral_service import codec
from mgral_service.domain.ports import Weights
from mgral_service.domain.specs import AgentSpec, CycleSpec, DetectorSpec, TableSpec
from mgral_service.strategies import STRATEGIES

OUT = HERE.parent / "out" / "benchmarks"
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
WARM = TableSpec(
    records=96,
    source="hindsight",
    objective="csd",
    start="detector",
    rate=0.3,
    steps=60,
    views=4,
    twice=0.0,
)


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
    table: TableSpec = WARM
    agent: AgentSpec = field(default_factory=lambda: AgentSpec(iterations=200))

    def job(self, strategy: str, seed: int, device: str) -> Job:
        """The first of a run."""
        spec = CycleSpec(self.name, self.budget, seed, strategy, detector=self.detector)
        if strategy.startswith("mgral"):
            spec = replace(spec, strategy="mgral", table=self.table, agent=self.agent)
        if strategy == "mgral-paper":
            spec = as_printed(spec)
        return Job(self.name, self.scenes, self.initial, strategy, spec, device)

    @property
    def quick(self) -> World:
        return replace(
            self,
            cycles=1,
            seeds=2,
            scenes=96,
            detector=replace(self.detector, steps=2),
            table=replace(self.table, records=4, steps=2, views=1, checkpoints=1, online=1),
            agent=replace(self.agent, iterations=5),
        )


WORLDS = {
    one.name: one
    for one in (
        World("digits", 40, 20, 4, 5),
        World("vehicles", 40, 40, 3, 3),
        World("bccd", 40, 20, 3, 2),
        World("chess_pieces", 40, 20, 3, 2),
    )
}
ASKED = ("digits", "vehicles")  # the others only serve to make rules on


def as_printed(spec: CycleSpec) -> CycleSpec:
    """The paper's method with every switch as it is printed: proxies on unlabelled batches alone,
    trained from the initial weights, uniform batches, inverse Wasserstein distance, one walk over
    the pool, one draw a step, Eq. 2, and the agent's batch whatever the table is worth.

    M and the numbers of steps are not the paper's: they stay in proportion to the data. M is an
    eighth of that of "mgral": a proxy that trains from scratch with every view anew takes about
    eight times as long as a head that goes on from the task detector on kept features. The table
    tells the seconds of both.
    """
    return replace(
        spec,
        choice="agent",
        table=replace(
            spec.table,
            records=max(4, spec.table.records // 8),
            source="semi_supervised",
            design="uniform",
            objective="sed" if spec.detector.name == "retinanet" else "isd",
            start="initial",
            rate=1.0,
            steps=max(spec.table.steps, 2 * spec.detector.steps // 5),
            views=0,
            stop=1.0,
            checkpoints=1,
            repeats=1,
            average=True,
            common_draws=False,
            online=0,
            value_model="idw",
            distance="exact",
            cutoff="query",
        ),
        agent=replace(
            spec.agent,
            state="embedding",
            draws=1,
            baseline="paper",
            memory=0.5,
            lane=0,
            caution=0.0,
            entropy=0.0,
            clusters=0,
        ),
    )


# --- all tasks ----------------------------------------------------------------------------------

Submit = Callable[..., "Future[Any]"]
"""A task and what it is given."""


class Kept:
    """Points in a file of JSON lines, by the key of their job.

    more  AP50 of further detectors, by Job.key_after and which one
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._points: dict[str, Point] = {}
        self.more: dict[tuple[str, int], float] = {}
        for told in kept_lines(file):
            key = told.pop("key")
            if "turn" in told:
                self.more[key, told["turn"]] = told["ap50"]
            else:
                self._points[key] = codec.build(Point, told)

    def get(self, job: Job) -> Point | None:
        found = self._points.get(job.key)
        return None if found is None else replace(found, strategy=job.strategy)

    def put(self, job: Job, point: Point) -> None:
        self._points[job.key] = point
        self._write({"key": job.key, **asdict(point)})

    def put_more(self, key: str, turn: int, ap50: float) -> None:
        self.more[key, turn] = ap50
        self._write({"key": key, "turn": turn, "ap50": ap50})

    def _write(self, told: Mapping[str, Any]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


def play(
    world: World, strategies: Sequence[str], device: str, submit: Submit, many: int, kept: Kept
) -> list[tuple[Job, Point]]:
    """Every strategy with every seed, all cycles; `many` tasks at once, earlier seeds first, so
    that a comparison that is cut short has whole seeds.
    """
    played: list[tuple[Job, Point]] = []
    ready: list[tuple[Job, Weights | None]] = []
    waiting: dict[Future[tuple[Point, Weights]], Job] = {}

    def go_on(job: Job, point: Point, weights: Weights | None) -> None:
        """Note what is known, and make ready what comes after it."""
        found: Point | None = point
        while found is not None:
            played.append((job, found))
            if job.cycle == world.cycles:
                return
            job = job.after(found)
            found = kept.get(job)
            weights = None if found is not None else weights
        ready.append((job, weights))

    def open_runs(job: Job, point: Point, weights: Weights | None) -> None:
        for name in strategies:
            own = world.job(name, job.spec.seed, device)
            go_on(own, replace(point, strategy=name), weights)

    for seed in range(world.seeds):
        job = world.job(REFERENCE, seed, device)
        known = kept.get(job)
        if known is None:
            ready.append((job, None))
        else:
            open_runs(job, known, None)
    while ready or waiting:
        ready.sort(key=lambda one: (one[0].spec.seed, one[0].cycle))
        while ready and len(waiting) < many:
            job, weights = ready.pop(0)
            waiting[submit(step, job, weights)] = job
        for done in wait(waiting, return_when=FIRST_COMPLETED).done:
            job = waiting.pop(done)
            point, weights = done.result()
            kept.put(job, point)
            _tell(job, point)
            (go_on if job.cycle else open_runs)(job, point, weights)
    order = {name: at for at, name in enumerate(strategies)}
    return sorted(played, key=lambda one: (order[one[1].strategy], one[1].seed, one[1].cycle))


def measure_again(
    played: Sequence[tuple[Job, Point]], detectors: int, submit: Submit, kept: Kept
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
        if (key, turn) not in kept.more
    }
    waiting = {submit(again, *task): key for key, task in tasks.items()}
    for number, done in enumerate(as_completed(waiting), start=1):
        kept.put_more(*waiting[done], done.result())
        end = "\n" * (number == len(waiting))
        print(f"\r{number} of {len(waiting)} further detectors", end=end, file=sys.stderr)
    return [
        replace(point, more=tuple(kept.more[key, turn] for turn in turns))
        for key, (_, point) in zip(keys, played, strict=True)
    ]


def _tell(job: Job, point: Point) -> None:
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
    found = ray.cluster_resources()
    remote = cache(ray.remote(num_cpus=1, num_gpus=float(device == "cuda")))
    many = int(found.get("CPU" if device == "cpu" else "GPU", 1))
    yield lambda task, *given: remote(task).remote(*given).future(), many


def own_flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    told = f"default: {' '.join(ASKED)}"
    parser.add_argument("--world", nargs="+", choices=tuple(WORLDS), help=told)
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
    kept = Kept(file)
    figures: dict[str, float] = {}
    with tasks(own["local"], options.device) as (submit, many):
        for name in names:
            world = WORLDS[name].quick if options.quick else WORLDS[name]
            seeds, cycles = own["seeds"] or world.seeds, own["cycles"] or world.cycles
            world = replace(world, seeds=seeds, cycles=cycles)
            played = play(world, strategies, options.device, submit, many, kept)
            points = measure_again(played, own["detectors"], submit, kept)
            folder = file.parent / "compare" / f"{name}{'-quick' * options.quick}"
            figures |= write(name, points, folder)
    return figures


def write(name: str, points: Sequence[Point], folder: Path) -> dict[str, float]:
    """Curves, figure and table of a world into `folder`; its figures."""
    folder.mkdir(parents=True, exist_ok=True)
    curves = Curves(points)
    write_csv(points, folder / "curves.csv")
    draw(curves, name, folder / "curves.png")
    (folder / "table.md").write_text(table(curves), "utf-8")
    figures = {
        f"{name}_seeds": float(len(curves.seeds)),
        f"{name}_cycles": curves.cycles - 1.0,
        f"{name}_detectors": float(curves.detectors),
    }
    for one in map(curves.summary, curves.strategies):
        figures |= one.figures(f"{name}_{one.strategy.replace('-', '_')}")
    return figures


def start(arguments: Sequence[str] | None = None) -> None:
    words = "learning curves of strategies: area under AP50, gains over uniform, what they cost"
    main("compare", words, measure, arguments, own_flags())


if __name__ == "__main__":
    start()

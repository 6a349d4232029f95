"""What a batch of each classical strategy is worth, on training images alone, and what a rule gains
that chooses among them by trials in halves of the scoring images, as a cycle does.

The pools are those of `compare` at their start, but of seeds that it does not use. A third of a
pool is set aside to score, and each strategy chooses from parts of the rest (two thirds, drawn
anew). A short proxy is trained on the labelled images and the batch, with its labels; its AP50 over
that of uniform batches of the same part is the gain. Each is also tried as in a cycle's tryouts:
`rule_Z` is what the choice by such trials gains that leaves the default only for a strategy Z
standard errors ahead, the mean over all pools and all choices of TRIED halves. Pools that are done
are kept (`--kept`), so an interrupted run goes on; delete what a strategy found when its code has
changed.
`--quick`: digits, one seed, trainings of 2 steps.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks.compare import OUT, World
from benchmarks.gains import (
    UNIFORM,
    each_pool,
    gain_figures,
    own_flags,
    pools,
    proxy_score,
    setting,
)
from benchmarks.harness import Figures, Options, kept_lines, main
from benchmarks.runs import place
from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.design import CHEAP
from mgral_service.domain.evidence import TablePoint
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import Weights
from mgral_service.domain.records import Progress
from mgral_service.domain.seeds import Purpose, seed_of
from mgral_service.metrics import METRICS
from mgral_service.strategies import CLASSICAL
from mgral_service.strategies.trials import best_classical, trials
from mgral_service.strategies.view import PoolView

PARTS = 4  # of a pool, that strategies choose from
HALVES = 8  # of the scoring images, where they are tried: further parts
TRIED = 6  # of these at a time
SURE = (0, 1, 2, 3)
UNIFORMS = (3, 2)  # batches of a part, and of a half


@dataclass(frozen=True, slots=True)
class Batch:
    """Batch number `turn` that a strategy chose from a part. setting: a digest of the world's."""

    setting: str
    world: str
    seed: int
    part: int
    strategy: str
    turn: int


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A pool and a detector that has seen it. parts [PARTS + HALVES]: what strategies choose from,
    how many, and what scores it.
    """

    labelled: tuple[str, ...]
    parts: tuple[tuple[tuple[str, ...], int, tuple[str, ...]], ...]
    seen: PoolObservation
    weights: Weights
    trainer: LocalProxyTrainer
    classes: tuple[str, ...]

    def score(self, one: Batch) -> float:
        """AP50 of a proxy of labelled images and the batch."""
        part, size, scoring = self.parts[one.part]
        split = PoolSplit(dict.fromkeys(self.labelled, 0), part, ())
        view = PoolView(split, self.seen.subset((*self.labelled, *part)), self.classes)
        rng = np.random.default_rng([one.part, one.turn])
        batch = view.names(CLASSICAL[one.strategy](view, size, rng).positions)
        return proxy_score(self.trainer, (*self.labelled, *batch), scoring, one.seed, self.weights)


@lru_cache(maxsize=1)
def site(world: World, seed: int, device: str) -> Site:
    job = world.job("mgral", seed, device)
    spec, here = job.spec, place(job.world, job.scenes, job.spec.detector.size)
    split, truth, metric = here.split(job), here.data.annotations, METRICS["ap50"]()
    rng = np.random.default_rng([seed, 79])
    pool = rng.permutation(sorted(split.unlabelled)).tolist()
    scoring, pool = pool[: len(pool) // 3], pool[len(pool) // 3 :]
    size = max(spec.budget + 2, round(2 / 3 * len(pool)))
    parts = []
    for _ in range(PARTS):
        part = tuple(sorted(rng.permutation(pool)[:size].tolist()))
        parts.append((part, spec.budget, tuple(scoring)))
    for _ in range(HALVES // 2):
        known = rng.permutation(sorted(split.scoring)).tolist()
        one, other = (tuple(sorted(known[at::2])) for at in (0, 1))
        parts += [(one, min(spec.budget, len(one) // 2), other)]
        parts += [(other, min(spec.budget, len(other) // 2), one)]
    labelled, classes = tuple(split.labelled), here.data.classes
    own = seed_of(seed, Purpose.DETECTOR)
    detector = TaskDetector(spec.detector, classes, here.images, metric, own, device)
    detector.fit(truth.subset(labelled), _silent)
    seen = detector.observe((*labelled, *pool, *split.scoring), _silent)
    trainer = LocalProxyTrainer(
        spec.detector, spec.table, classes, here.images, truth, tuple(scoring), metric, device
    )
    return Site(labelled, tuple(parts), seen, detector.state(), trainer, classes)


def scores(world: World, batches: Sequence[Batch], device: str) -> list[float]:
    """Of batches of one seed."""
    return [site(world, one.seed, device).score(one) for one in batches]


def train(
    jobs: Sequence[tuple[World, list[Batch]]], device: str, kept: Path
) -> Iterator[tuple[Batch, float]]:
    """The batches of each job, one job a core; noted in `kept` as jobs end."""
    for at, scored in each_pool(scores, jobs, device):
        found = list(zip(jobs[at][1], scored, strict=True))
        with kept.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps({**asdict(one), "ap50": ap}) + "\n" for one, ap in found)
        yield from found


def gains(found: Mapping[Batch, float], world: str, strategy: str) -> FloatArray:
    """[seeds] over uniform, the mean over a pool's parts."""
    parts: dict[tuple[int, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for one, score in found.items():
        if one.world == world and one.part < PARTS:
            parts[one.seed, one.part][one.strategy].append(score)
    seeds: dict[int, list[float]] = defaultdict(list)
    for (seed, _), scored in parts.items():
        seeds[seed].append(float(np.mean(scored[strategy]) - np.mean(scored[UNIFORM])))
    return np.array([np.mean(seeds[seed]) for seed in sorted(seeds)])


def figures_of(found: Mapping[Batch, float], worlds: Sequence[str]) -> dict[str, float]:
    """Gains over uniform."""
    figures: dict[str, float] = {}
    for strategy in (name for name in CLASSICAL if name != UNIFORM):
        figures |= gain_figures(
            strategy, {world: gains(found, world, strategy) for world in worlds}
        )
    return figures


def rules(found: Mapping[Batch, float], worlds: Sequence[str]) -> dict[str, float]:
    """Gain over uniform of the strategy that trials choose, by how sure they have to be."""
    gained = {(world, name): gains(found, world, name) for world in worlds for name in CLASSICAL}
    seeds = sorted({one.seed for one in found})
    means: dict[int, list[float]] = {sure: [] for sure in SURE}
    for world in worlds:
        for at, seed in enumerate(seeds):
            for halves in combinations(_halves(found, world, seed), TRIED):
                tried = trials([point for half in halves for point in half], CLASSICAL)
                for sure in SURE:
                    means[sure].append(gained[world, best_classical(tried, sure).name][at])
    return {f"rule_{sure}": float(np.mean(some)) for sure, some in means.items()}


def _halves(found: Mapping[Batch, float], world: str, seed: int) -> list[list[TablePoint]]:
    """The records of each."""
    halves = []
    for part in range(PARTS, PARTS + HALVES):
        place = (world, seed, part)
        own = {at: ap for at, ap in found.items() if (at.world, at.seed, at.part) == place}
        level = float(np.mean([*own.values()]))
        halves.append(
            [
                TablePoint(0, at.strategy, ap, ap, 0.0, "hindsight", 1.0, level)
                for at, ap in own.items()
            ]
        )
    return halves


def measure(options: Options) -> Figures:
    file: Path = options.own["kept"] or OUT / f"strategy_gains{'-quick' * options.quick}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    found: dict[Batch, float] = {}
    for told in kept_lines(file):
        ap50 = told.pop("ap50")
        found[Batch(**told)] = ap50
    jobs: list[tuple[World, list[Batch]]] = []
    wanted: list[Batch] = []
    for world, seed in pools(options):
        every = [
            Batch(setting(world, options.device), world.name, seed, part, strategy, turn)
            for part in range(PARTS + HALVES)
            for strategy in (CLASSICAL if part < PARTS else (UNIFORM, *CHEAP))
            for turn in range(UNIFORMS[part >= PARTS] if strategy == UNIFORM else 1)
        ]
        wanted += every
        if todo := [one for one in every if one not in found]:
            jobs.append((world, todo))
    found |= dict(train(jobs, options.device, file))
    asked = {one: found[one] for one in wanted}
    names = list(dict.fromkeys(one.world for one in wanted))
    return {**figures_of(asked, names), **rules(asked, names)}


def start(arguments: Sequence[str] | None = None) -> None:
    words = "AP50 gains over uniform of strategies' batches on training images, by short proxies"
    main("strategy_gains", words, measure, arguments, own_flags("strategy_gains"))


def _silent(progress: Progress) -> None: ...


if __name__ == "__main__":
    start()

"""What a batch of each classical strategy gains over a uniform one, on training images alone: the
prior of `domain/value/gains.py`.

The pools are those of `compare` at their start, but of seeds that it does not use. A third of a
pool is set aside to score, and each strategy chooses from parts of the rest (two thirds, drawn
anew). A short proxy is trained on the labelled images and the batch, with its labels; its AP50 over
that of uniform batches of the same part is the gain. Finished pools are stored (`--kept`), so an
interrupted run goes on. `--quick`: digits, one seed, trainings of 2 steps.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.compare import WORLDS, World
from benchmarks.lib.harness import OUT, Figures, Options, kept_lines, main
from benchmarks.lib.runs import place
from benchmarks.lib.trainings import one_thread
from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.boxes import PoolPredictions
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.ports import Weights
from mgral_service.domain.records import Progress, ProxySpec
from mgral_service.domain.seeds import Purpose, seed_of
from mgral_service.metrics import METRICS
from mgral_service.strategies import CLASSICAL

SEEDS = (10, 11)  # not those of `compare`
PARTS = 4  # of a pool, that strategies choose from
UNIFORMS = 3  # batches of a part
UNIFORM = "uniform"


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
    """A pool and the predictions of a detector of its labelled images. parts: what strategies
    choose from.
    """

    labelled: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    scoring: tuple[str, ...]
    budget: int
    predictions: PoolPredictions
    weights: Weights
    trainer: LocalProxyTrainer
    classes: tuple[str, ...]

    def score(self, batch: Batch) -> float:
        """AP50 of a proxy of labelled images and the batch."""
        part = self.parts[batch.part]
        pool = CandidatePool(self.predictions, self.labelled, part, self.classes, self.budget)
        rng = np.random.default_rng([batch.part, batch.turn])
        ranking = CLASSICAL[batch.strategy].pick(pool, pool.batch_size, rng)
        images = pool.names(ranking.positions)
        spec = ProxySpec(
            index=0,
            role="candidate",
            chosen_by=batch.strategy,
            fold=0,
            batch=images,
            labelled=(*self.labelled, *images),
            unlabelled=(),
            scoring=self.scoring,
            seed=seed_of(batch.seed, Purpose.PROXY),
        )
        (result,) = self.trainer.train([spec], {0: self.weights})
        if result.score is None:
            raise RuntimeError(f"a proxy failed: {result.cause}")
        return result.score


@lru_cache(maxsize=1)
def site(world: World, seed: int, device: str) -> Site:
    job = world.job("mgral", seed, device)
    spec, here = job.spec, place(job.world, job.scenes, job.spec.detector.size)
    split, truth, metric = here.split(job), here.data.annotations, METRICS["ap50"]()
    rng = np.random.default_rng([seed, 79])
    pool = rng.permutation(sorted(split.unlabelled)).tolist()
    scoring, pool = pool[: len(pool) // 3], pool[len(pool) // 3 :]
    size = max(spec.budget + 2, round(2 / 3 * len(pool)))
    parts = tuple(tuple(sorted(rng.permutation(pool)[:size].tolist())) for _ in range(PARTS))
    labelled, classes = tuple(split.labelled), here.data.record.classes
    detector_seed = seed_of(seed, Purpose.DETECTOR)
    detector = TaskDetector(spec.detector, classes, here.images, metric, detector_seed, device)
    detector.fit(truth.subset(labelled), _silent)
    trainer = LocalProxyTrainer(
        spec.detector, spec.table, classes, here.images, truth, metric, device
    )
    return Site(
        labelled=labelled,
        parts=parts,
        scoring=tuple(scoring),
        budget=spec.budget,
        predictions=detector.predict((*labelled, *pool), _silent),
        weights=detector.state(),
        trainer=trainer,
        classes=classes,
    )


def scores(world: World, batches: Sequence[Batch], device: str) -> list[float]:
    """Of batches of one seed."""
    return [site(world, batch.seed, device).score(batch) for batch in batches]


def train(
    jobs: Sequence[tuple[World, list[Batch]]], device: str, file: Path
) -> Iterator[tuple[Batch, float]]:
    """The batches of each job, one job a core; written to `file` as jobs end."""
    workers = (os.cpu_count() or 1) if device == "cpu" else 1
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, one_thread) as executor:
        waiting = {
            executor.submit(scores, world, batches, device): batches for world, batches in jobs
        }
        for number, done in enumerate(as_completed(waiting), start=1):
            scored = list(zip(waiting[done], done.result(), strict=True))
            print(f"{number} of {len(waiting)} pools", file=sys.stderr, flush=True)
            with file.open("a", encoding="utf-8") as lines:
                lines.writelines(
                    json.dumps({**asdict(batch), "ap50": ap50}) + "\n" for batch, ap50 in scored
                )
            yield from scored


def gains(measured: Mapping[Batch, float], world: str, strategy: str) -> FloatArray:
    """[seeds] over uniform, the mean over a pool's parts."""
    parts: dict[tuple[int, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for batch, score in measured.items():
        if batch.world == world:
            parts[batch.seed, batch.part][batch.strategy].append(score)
    seeds: dict[int, list[float]] = defaultdict(list)
    for (seed, _), scored in parts.items():
        seeds[seed].append(float(np.mean(scored[strategy]) - np.mean(scored[UNIFORM])))
    return np.array([np.mean(seeds[seed]) for seed in sorted(seeds)])


def figures_of(measured: Mapping[Batch, float], worlds: Sequence[str]) -> dict[str, float]:
    """By strategy: each world's mean gain, and the mean of worlds with its standard error, pools
    taken for independent.
    """
    figures: dict[str, float] = {}
    for strategy in (name for name in CLASSICAL if name != UNIFORM):
        by_world = {world: gains(measured, world, strategy) for world in worlds}
        means = {f"{world}_{strategy}": float(gain.mean()) for world, gain in by_world.items()}
        figures |= {**means, f"mean_{strategy}": float(np.mean([*means.values()]))}
        if min(map(len, by_world.values())) > 1:
            squares = [gain.var(ddof=1) / len(gain) for gain in by_world.values()]
            figures[f"mean_{strategy}_error"] = float(np.sum(squares) ** 0.5 / len(by_world))
    return figures


def measure(options: Options) -> Figures:
    quick = options.quick
    file: Path = options.own["kept"] or OUT / f"strategy_gains{'-quick' * quick}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    measured: dict[Batch, float] = {}
    for line in kept_lines(file):
        ap50 = line.pop("ap50")
        measured[Batch(**line)] = ap50
    names = options.own["world"] or (["digits"] if quick else list(WORLDS))
    worlds = [WORLDS[name].quick if quick else WORLDS[name] for name in names]
    jobs: list[tuple[World, list[Batch]]] = []
    wanted: list[Batch] = []
    for seed in SEEDS[:1] if quick else SEEDS:
        for world in worlds:
            batches = [
                Batch(setting(world, options.device), world.name, seed, part, strategy, turn)
                for part in range(PARTS)
                for strategy in CLASSICAL
                for turn in range(UNIFORMS if strategy == UNIFORM else 1)
            ]
            wanted += batches
            if missing := [batch for batch in batches if batch not in measured]:
                jobs.append((world, missing))
    measured |= dict(train(jobs, options.device, file))
    return figures_of({batch: measured[batch] for batch in wanted}, names)


def setting(world: World, device: str) -> str:
    """A digest of all that makes what a pool gives."""
    text = json.dumps([asdict(world), device], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def own_flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--world", nargs="+", choices=tuple(WORLDS), help="default: all")
    parser.add_argument("--kept", type=Path, help="default: out/benchmarks/strategy_gains.jsonl")
    return parser


def start(arguments: Sequence[str] | None = None) -> None:
    claim = "AP50 gains over uniform of strategies' batches on training images, by short proxies"
    main("strategy_gains", claim, measure, arguments, own_flags())


def _silent(progress: Progress) -> None: ...


if __name__ == "__main__":
    start()

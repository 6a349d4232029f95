"""What batches are worth over uniform ones on training images: what benchmarks of it share."""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks.compare import WORLDS, World
from benchmarks.harness import Options
from benchmarks.trainings import one_thread
from mgral_service.detectors.local import LocalProxyTrainer
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.ports import Weights
from mgral_service.domain.records import ProxySpec
from mgral_service.domain.seeds import Purpose, seed_of

T = TypeVar("T")
SEEDS = (10, 11)  # not those of `compare`
UNIFORM = "uniform"


def own_flags(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--world", nargs="+", choices=tuple(WORLDS), help="default: all")
    parser.add_argument("--kept", type=Path, help=f"default: out/benchmarks/{name}.jsonl")
    return parser


def pools(options: Options) -> list[tuple[World, int]]:
    """Those asked for, seed by seed."""
    quick = options.quick
    names = options.own["world"] or (["digits"] if quick else list(WORLDS))
    worlds = [WORLDS[name].quick if quick else WORLDS[name] for name in names]
    return [(world, seed) for seed in (SEEDS[:1] if quick else SEEDS) for world in worlds]


def setting(world: World, device: str) -> str:
    """A digest of all that makes what a pool gives."""
    told = json.dumps([asdict(world), device], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def each_pool(
    work: Callable[..., T], jobs: Sequence[tuple[Any, ...]], device: str
) -> Iterator[tuple[int, T]]:
    """What `work` gives for each job, as they end, with its place; one job a core."""
    many = (os.cpu_count() or 1) if device == "cpu" else 1
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(many, context, one_thread) as pool:
        waiting = {pool.submit(work, *job, device): at for at, job in enumerate(jobs)}
        for number, done in enumerate(as_completed(waiting), start=1):
            found = done.result()
            print(f"{number} of {len(waiting)} pools", file=sys.stderr, flush=True)
            yield waiting[done], found


def proxy_score(
    trainer: LocalProxyTrainer,
    images: tuple[str, ...],
    scoring: tuple[str, ...],
    seed: int,
    weights: Weights,
) -> float:
    """AP50 of a proxy of these images, trained from the weights. seed: the pool's."""
    spec = ProxySpec(0, images, (), seed_of(seed, Purpose.PROXY), 1, scoring)
    (result,) = trainer.train([spec], {1: weights})
    if result.score is None:
        raise RuntimeError(f"a proxy failed: {result.cause}")
    return result.score


def gain_figures(choice: str, gained: Mapping[str, FloatArray]) -> dict[str, float]:
    """Gains [pools] by world: each world's mean, and the mean of worlds with its standard error,
    pools taken for independent.
    """
    means = {f"{world}_{choice}": float(some.mean()) for world, some in gained.items()}
    figures = {**means, f"mean_{choice}": float(np.mean([*means.values()]))}
    if min(map(len, gained.values())) > 1:
        squares = [some.var(ddof=1) / len(some) for some in gained.values()]
        figures[f"mean_{choice}_error"] = float(np.sum(squares) ** 0.5 / len(gained))
    return figures

"""Selection from a million images: time, memory and growth of the streamed pass, and how much of it
the hierarchical scheme (clusters first, then their images) gives in less time.

B = 10,000 of N = 1,000,000 made-up embeddings (256-d, many kinds of image, a long tail, rectified)
in a file, by a policy that was trained briefly on 2,000 of them. Timed: both passes over the file,
which has just been written and so is mostly cached. The peak is that of the whole process.
`order_overlap` is the measure for `hierarchy_overlap`: the share of the top-B that the same policy
gives when it walks the pool backwards, since a score depends on the images before. `--quick`: N =
100,000. The processor is used, whatever the device.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np

from benchmarks.lib.harness import Figures, Options, main
from mgral_service.agent.hierarchy import select_by_clusters
from mgral_service.agent.reinforce import train_agent
from mgral_service.agent.streaming import (
    Best,
    EmbeddingFile,
    Rows,
    Weights,
    select,
    standardised,
)
from mgral_service.domain.arrays import Float32Array, FloatArray, IntArray
from mgral_service.domain.specs import AgentAdvanced, AgentSpec

SEED = 0
IMAGES, QUICK_IMAGES = 1_000_000, 100_000
GROWTH = 10  # of N between the two pools that are timed
SHARE = 100  # B = N / SHARE
DIMENSION = 256
KINDS, LATENT = 1000, 32
CHUNK = 10_000  # embeddings made at a time
CLUSTERS = 256
TRAINED = 2000  # images that the policy is trained on
AGENT = AgentSpec(iterations=30, advanced=AgentAdvanced(learning_rate=3e-3))


@dataclass(frozen=True, slots=True, eq=False)
class Timed:
    best: Best
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Backwards:
    """Rows from the last to the first."""

    pool: Rows

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pool.shape

    def __getitem__(self, rows: slice, /) -> np.ndarray[Any, Any]:
        start, stop, _ = rows.indices(self.shape[0])
        return self.pool[self.shape[0] - stop : self.shape[0] - start][::-1]

    def take(self, positions: IntArray, /, axis: int) -> np.ndarray[Any, Any]:
        return self.pool.take(self.shape[0] - 1 - positions, axis=axis)


def measure(options: Options) -> Figures:
    images = QUICK_IMAGES if options.quick else IMAGES
    budget = images // SHARE
    with tempfile.TemporaryDirectory() as folder:
        few = write_pool(Path(folder) / "few.npy", images // GROWTH)
        many = write_pool(Path(folder) / "many.npy", images)
        weights = trained(standardised(few)[:TRAINED])
        timed(lambda: select(weights, standardised(few[:CHUNK]), budget))  # warms up
        small = timed(lambda: select(weights, standardised(few), budget // GROWTH))
        large = timed(lambda: select(weights, standardised(many), budget))
        print(f"{images:,} images in {large.seconds:.1f} s", flush=True)
        clustered = timed(
            lambda: select_by_clusters(weights, standardised(many), CLUSTERS, budget, SEED)
        )
        print(f"clusters first in {clustered.seconds:.1f} s; now backwards", flush=True)
        backwards = select(weights, Backwards(standardised(many)), budget)
    return {
        "seconds": large.seconds,
        "peak_gb": peak_gb(),
        "growth": large.seconds / small.seconds,
        "cpu_seconds": large.cpu_seconds,
        "small_seconds": small.seconds,
        "hierarchy_seconds": clustered.seconds,
        "hierarchy_cpu_seconds": clustered.cpu_seconds,
        "hierarchy_overlap": overlap(large.best.positions, clustered.best.positions),
        "order_overlap": overlap(large.best.positions, images - 1 - backwards.positions),
        "images": images,
        "budget": budget,
        "clusters": CLUSTERS,
    }


def write_pool(path: Path, images: int) -> EmbeddingFile:
    """[images, DIMENSION] float32 embeddings in a file, the same at every call."""
    rng = np.random.default_rng(SEED)
    kinds = rng.standard_normal((KINDS, LATENT // 2))
    mix = (rng.standard_normal((LATENT, DIMENSION)) / 4).astype(np.float32)
    shares = 1 / np.arange(1, KINDS + 1)
    shares /= shares.sum()
    header = {"descr": "<f4", "fortran_order": False, "shape": (images, DIMENSION)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, images, CHUNK):
            count = min(CHUNK, images - start)
            latent = 0.5 * rng.standard_normal((count, LATENT), dtype=np.float32)
            latent[:, : LATENT // 2] += kinds[rng.choice(KINDS, count, p=shares)]
            noise = 0.3 * rng.standard_normal((count, DIMENSION), dtype=np.float32)
            file.write(np.maximum(latent @ mix + noise, 0).tobytes())
    return EmbeddingFile.open(path)


def trained(points: Float32Array) -> Weights:
    """A policy that prefers images along a direction."""
    along = np.random.default_rng(SEED).standard_normal(DIMENSION) / DIMENSION**0.5
    worth = np.tanh(points @ along)

    def reward(batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        return np.array([0.1 * worth[batch].mean() for batch in batches]), np.zeros(len(batches))

    size = max(1, len(points) // SHARE)
    agent = train_agent(points.astype(np.float64), reward, size, AGENT, SEED, lambda progress: None)
    return agent.weights


def timed(choose: Callable[[], Best]) -> Timed:
    began, cpu = perf_counter(), process_time()
    best = choose()
    return Timed(best, perf_counter() - began, process_time() - cpu)


def overlap(reference: IntArray, chosen: IntArray) -> float:
    """Share of `reference` that is in `chosen`."""
    return float(np.isin(reference, chosen).mean())


def peak_gb() -> float:
    """The most memory this process has held at once, 10^9 bytes, imports included."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


if __name__ == "__main__":
    main("million_pool", "Selection from a million images, streamed and by clusters", measure)

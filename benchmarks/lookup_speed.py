"""Time of one read of the lookup table: the exact Wasserstein distances and the sketched ones,
against the plain loop, and whether the numbers and the ranks agree.

200 records of 1,000 images from a made-up pool of 15,500 with 256-d embeddings, once drawn
uniformly and once tilted (domain/design.py); each table is read by batches of its own kind. The
loop is `scipy`'s cdist and `ot.emd2` a record; it is timed on a tenth of each table's records and
scaled. Exact reads are timed over all records, sketched ones over 16 batches at a time. `--quick`:
fewer records of fewer images.
"""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter, process_time
from typing import Literal

import numpy as np
import ot
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from benchmarks.harness import Figures, Options, main
from mgral_service.domain import design, transport
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Detections, PoolObservation

SEED = 0
DRAWS = 16  # batches read at a time, as the agent's step does
REPEATS = 20  # of a sketched read, whose median counts
CLASSES = 20
CLUSTERS = 40


@dataclass(frozen=True, slots=True)
class Size:
    """pool: images; dimension: of their embeddings; records: of a table; budget: images a record;
    loop: records of a table on which the loop is timed; reads: batches read exactly.
    """

    pool: int
    dimension: int
    records: int
    budget: int
    loop: int
    reads: int


FULL = Size(15_500, 256, 200, 1000, 20, 2)
QUICK = Size(6000, 256, 24, 500, 12, 2)

Kind = Literal["uniform", "tilted"]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds a record by the loop and by exact reads, wall clock and processor; seconds a batch by
    sketched ones; error: largest difference of exact from loop.
    """

    loop: float
    loop_cpu: float
    exact: float
    exact_cpu: float
    sliced: float
    error: float


def measure(options: Options) -> Figures:
    size = QUICK if options.quick else FULL
    seen = observation(size, np.random.default_rng(SEED))
    points = transport.standardise(seen.embeddings)
    transport.exact_distances(points, [np.arange(9)], [np.arange(9, 18)])
    loop_distance(points[:9], points[9:18])
    figures: dict[str, float] = {}
    kinds: tuple[Kind, ...] = ("uniform", "tilted")
    times = []
    for kind in kinds:
        records, batches = drawn(kind, size, seen)
        time, ranks = read(points, batches, records, size)
        times.append(time)
        figures |= {f"{name}_{kind}": value for name, value in ranks.items()}
        print(f"{kind}: exact {1e3 * time.exact:.1f} ms a record, loop {1e3 * time.loop:.1f} ms")
    loop, loop_cpu, exact, exact_cpu, sliced, _ = np.mean(
        [[one.loop, one.loop_cpu, one.exact, one.exact_cpu, one.sliced, 0.0] for one in times],
        axis=0,
    )
    return {
        "exact_speedup": loop / exact,
        "exact_cpu_speedup": loop_cpu / exact_cpu,
        "sliced_speedup": loop * size.records / sliced,
        "exact_error": max(one.error for one in times),
        "loop_s": loop * size.records,
        "exact_s": exact * size.records,
        "sliced_s": sliced,
        **figures,
    }


def observation(size: Size, rng: np.random.Generator) -> PoolObservation:
    """A made-up pool: embeddings in clusters, with axes of falling spread as a network's have, and
    detections whose classes follow the cluster.
    """
    ids = tuple(f"{number:06d}" for number in range(size.pool))
    cluster = rng.integers(CLUSTERS, size=size.pool)
    falling = 1.0 / np.sqrt(1.0 + np.arange(size.dimension))
    centres = rng.standard_normal((CLUSTERS, size.dimension))
    noise = rng.standard_normal((size.pool, size.dimension))
    turn = np.linalg.qr(rng.standard_normal((size.dimension, size.dimension)))[0]
    embeddings = (centres[cluster] + noise) * falling @ turn
    image = np.repeat(np.arange(size.pool), rng.integers(0, 5, size=size.pool))
    habits = rng.dirichlet(np.full(CLASSES + 1, 0.3), size=CLUSTERS)
    probs = 0.5 * habits[cluster[image]] + 0.5 * rng.dirichlet(np.ones(CLASSES + 1), len(image))
    boxes = np.tile([0.0, 0.0, 9.0, 9.0], (len(image), 1))
    best = probs[:, 1:]
    found = Detections(ids, image, boxes, best.argmax(axis=1), best.max(axis=1), probs)
    return PoolObservation(ids, embeddings, found)


def drawn(kind: Kind, size: Size, seen: PoolObservation) -> tuple[list[IntArray], list[IntArray]]:
    """Records of a table and DRAWS more batches of the same design, as positions."""
    images = np.arange(size.pool)
    labelled, unlabelled = images[: size.budget], images[size.budget :]
    rng = np.random.default_rng([SEED, len(kind)])

    def draw(count: int) -> list[IntArray]:
        some = design.draw(kind, count, size.budget, seen, labelled, unlabelled, {}, rng)
        return [np.array([int(name) for name in one.batch]) for one in some]

    records, batches = draw(size.records), draw(2 * DRAWS)
    return records, batches[-DRAWS:]


def read(
    points: FloatArray, batches: list[IntArray], records: list[IntArray], size: Size
) -> tuple[Times, dict[str, float]]:
    """Times of the three ways, and how their ranks of the records agree, mean over the exact
    reads.
    """
    read_exactly = batches[: size.reads]
    wall, cpu = perf_counter(), process_time()
    exact = transport.exact_distances(points, read_exactly, records)
    wall, cpu = (
        now - then for now, then in zip((perf_counter(), process_time()), (wall, cpu), strict=True)
    )

    some = np.linspace(0, size.records - 1, size.loop).astype(int)
    loop_wall, loop_cpu = perf_counter(), process_time()
    plain = np.array([loop_distance(points[batches[0]], points[records[at]]) for at in some])
    loop_wall, loop_cpu = perf_counter() - loop_wall, process_time() - loop_cpu

    along = transport.fixed_directions(points.shape[1])
    table = np.stack([transport.batch_sketch(points, record) for record in records])
    projected = along @ points.T
    sliced, seconds = np.zeros((0, 0)), []
    for _ in range(REPEATS):
        began = perf_counter()
        sliced = transport.sliced_distances(transport.sketches(projected, batches), table)
        seconds.append(perf_counter() - began)

    onehot = np.array([[one_hot_distance(batch, one) for one in records] for batch in read_exactly])
    exactly = len(read_exactly) * size.records
    times = Times(
        loop_wall / size.loop,
        loop_cpu / size.loop,
        wall / exactly,
        cpu / exactly,
        float(np.median(seconds)) / len(batches),
        float(np.abs(plain - exact[0, some]).max()),
    )
    return times, {
        "spearman_sliced_exact": agreement(sliced[: size.reads], exact),
        "spearman_onehot_exact": agreement(onehot, exact),
        "spearman_onehot_sliced": agreement(onehot, sliced[: size.reads]),
    }


def loop_distance(first: FloatArray, second: FloatArray) -> float:
    """W1 as one would write it."""
    masses = ot.unif(len(first)), ot.unif(len(second))
    return float(ot.emd2(*masses, cdist(first, second)))


def one_hot_distance(first: IntArray, second: IntArray) -> float:
    shared = len(np.intersect1d(first, second))
    return float(np.sqrt(len(first) + len(second) - 2 * shared))


def agreement(first: FloatArray, second: FloatArray) -> float:
    """Mean over reads [K, M] of the rank correlation over records."""
    return float(np.mean([spearmanr(a, b)[0] for a, b in zip(first, second, strict=True)]))


if __name__ == "__main__":
    main("lookup_speed", "A read of the lookup table, against cdist and ot.emd2", measure)

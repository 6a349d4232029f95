"""Time of one read of the lookup table, exact Wasserstein distances and sketched ones, against the
plain loop; and whether the numbers and the ranks agree.

200 records of 1,000 images of a made-up pool of 15,500 with 256-d embeddings, drawn uniformly or
tilted; each table is read by batches of its own kind. The loop is `scipy`'s cdist and `ot.emd2` a
record, timed on a tenth of the records and scaled. Exact reads are timed over all records, sketched
ones over 16 batches at a time. `--quick`: fewer records of fewer images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter, process_time

import numpy as np
import ot
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr

from benchmarks.lib.harness import Figures, Options, main
from benchmarks.lib.made_up import CLASSES, predictions
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.value import transport
from mgral_service.domain.value.design import tilted_batches, uniform_batches

SEED = 0
DRAWS = 16  # batches read at a time, as in a step of the agent
REPEATS = 20  # of a sketched read, whose median counts


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

Draw = Callable[[CandidatePool, int, np.random.Generator], list[IntArray]]
DESIGNS: dict[str, Draw] = {"uniform": uniform_batches, "tilted": tilted_batches}


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
    pool = made_up_pool(size)
    transport.exact_distances(pool.points, [np.arange(9)], [np.arange(9, 18)])  # warms up
    loop_distance(pool.points[:9], pool.points[9:18])
    figures: dict[str, float] = {}
    times = []
    for design, draw in DESIGNS.items():
        records, batches = drawn(draw, size, pool)
        time, ranks = read(pool.points, batches, records, size)
        times.append(time)
        figures |= {f"{name}_{design}": value for name, value in ranks.items()}
        print(f"{design}: exact {1e3 * time.exact:.1f} ms a record, loop {1e3 * time.loop:.1f} ms")
    loop, loop_cpu, exact, exact_cpu, sliced = np.mean(
        [[time.loop, time.loop_cpu, time.exact, time.exact_cpu, time.sliced] for time in times],
        axis=0,
    )
    return {
        "exact_speedup": loop / exact,
        "exact_cpu_speedup": loop_cpu / exact_cpu,
        "sliced_speedup": loop * size.records / sliced,
        "exact_error": max(time.error for time in times),
        "loop_s": loop * size.records,
        "exact_s": exact * size.records,
        "sliced_s": sliced,
        **figures,
    }


def made_up_pool(size: Size) -> CandidatePool:
    """The first `budget` images are labelled."""
    rng = np.random.default_rng(SEED)
    predicted, _ = predictions(size.pool, rng, size.dimension)
    labelled, candidates = predicted.ids[: size.budget], predicted.ids[size.budget :]
    return CandidatePool(predicted, labelled, candidates, CLASSES, size.budget)


def drawn(draw: Draw, size: Size, pool: CandidatePool) -> tuple[list[IntArray], list[IntArray]]:
    """Records of a table, and DRAWS more batches of the same design."""
    rng = np.random.default_rng(SEED)
    return draw(pool, size.records, rng), draw(pool, 2 * DRAWS, rng)[-DRAWS:]


def read(
    points: FloatArray, batches: list[IntArray], records: list[IntArray], size: Size
) -> tuple[Times, dict[str, float]]:
    """Times of the three ways, and how their ranks of the records agree, mean over the exact
    reads.
    """
    read_exactly = batches[: size.reads]
    wall, cpu = perf_counter(), process_time()
    exact = transport.exact_distances(points, read_exactly, records)
    wall, cpu = perf_counter() - wall, process_time() - cpu

    timed = np.linspace(0, size.records - 1, size.loop).astype(int)
    loop_wall, loop_cpu = perf_counter(), process_time()
    plain = np.array([loop_distance(points[batches[0]], points[records[row]]) for row in timed])
    loop_wall, loop_cpu = perf_counter() - loop_wall, process_time() - loop_cpu

    projected = transport.fixed_directions(points.shape[1]) @ points.T
    table = transport.sketches(projected, records)
    sliced, durations = np.zeros((0, 0)), []
    for _ in range(REPEATS):
        began = perf_counter()
        sliced = transport.sliced_distances(transport.sketches(projected, batches), table)
        durations.append(perf_counter() - began)

    one_hot = np.array(
        [[one_hot_distance(batch, record) for record in records] for batch in read_exactly]
    )
    exactly = len(read_exactly) * size.records
    times = Times(
        loop=loop_wall / size.loop,
        loop_cpu=loop_cpu / size.loop,
        exact=wall / exactly,
        exact_cpu=cpu / exactly,
        sliced=float(np.median(durations)) / len(batches),
        error=float(np.abs(plain - exact[0, timed]).max()),
    )
    return times, {
        "spearman_sliced_exact": agreement(sliced[: size.reads], exact),
        "spearman_onehot_exact": agreement(one_hot, exact),
        "spearman_onehot_sliced": agreement(one_hot, sliced[: size.reads]),
    }


def loop_distance(first: FloatArray, second: FloatArray) -> float:
    """W1 of two batches' embeddings, by library calls."""
    masses = ot.unif(len(first)), ot.unif(len(second))
    return float(ot.emd2(*masses, cdist(first, second)))


def one_hot_distance(first: IntArray, second: IntArray) -> float:
    """Between membership vectors, as `table.advanced.distance = "one_hot"`."""
    shared = len(np.intersect1d(first, second))
    return float(np.sqrt(len(first) + len(second) - 2 * shared))


def agreement(first: FloatArray, second: FloatArray) -> float:
    """Mean over reads [K, M] of the rank correlation over records."""
    return float(np.mean([spearmanr(a, b)[0] for a, b in zip(first, second, strict=True)]))


if __name__ == "__main__":
    main("lookup_speed", "A read of the lookup table, against cdist and ot.emd2", measure)

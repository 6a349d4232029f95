"""Small made-up pools for tests: observations, splits and tables that need no detector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from mgral_service.domain import design, transport
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Detections, PoolObservation
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.records import LookupRecord

CLASSES = ("cat", "dog", "bird")
SEEDS, SHIFTS = 0.01, (0.0, 0.05, -0.03)  # of a measurement; of the other seed, by rotation


def observe(count: int, dimension: int = 8, seed: int = 0, most: int = 4) -> PoolObservation:
    """`count` images with Gaussian embeddings and 0 to `most` detections each."""
    rng = np.random.default_rng(seed)
    ids = tuple(f"img_{at:04d}" for at in range(count))
    image = np.repeat(np.arange(count), rng.integers(0, most + 1, size=count))
    probs = rng.dirichlet(np.ones(len(CLASSES) + 1), size=len(image))
    probs = probs.reshape(len(image), len(CLASSES) + 1)
    labels = probs[:, 1:].argmax(axis=1)
    detections = Detections(
        ids,
        image,
        np.tile([0.0, 0.0, 9.0, 9.0], (len(image), 1)),
        labels,
        probs[:, 1:].max(axis=1),
        probs,
    )
    return PoolObservation(ids, rng.standard_normal((count, dimension)) * 3 + 1, detections)


def divide(observation: PoolObservation, labelled: int) -> PoolSplit:
    """The first `labelled` images are labelled, the rest is open."""
    ids = observation.ids
    return PoolSplit(dict.fromkeys(ids[:labelled], 0), ids[labelled:], ())


def positions(observation: PoolObservation, ids: tuple[str, ...]) -> IntArray:
    place = {name: at for at, name in enumerate(observation.ids)}
    return np.array([place[name] for name in ids], dtype=np.int64)


def measure(
    observation: PoolObservation,
    split: PoolSplit,
    records: int,
    budget: int,
    worth: Callable[[IntArray], float],
    seed: int = 0,
    kind: str = "tilted",
) -> LookupTable:
    """A table of `records` batches whose score is worth(batch positions)."""
    points = transport.standardise(observation.embeddings)
    drawn = design.draw(
        "tilted" if kind == "tilted" else "uniform",
        records,
        budget,
        observation,
        positions(observation, tuple(split.labelled)),
        positions(observation, split.unlabelled),
        {},
        np.random.default_rng(seed),
    )
    rows = [positions(observation, one.batch) for one in drawn]
    return LookupTable.of(
        [
            LookupRecord(
                "c1",
                index,
                one.batch,
                tuple(transport.batch_sketch(points, batch).tolist()),
                worth(batch),
                0,
                1.0,
                one.design,
            )
            for index, (one, batch) in enumerate(zip(drawn, rows, strict=True))
        ],
        observation.ids,
    )


def mean_of(values: FloatArray) -> Callable[[IntArray], float]:
    """Worth of a batch: the mean of its images' values [N]."""
    return lambda batch: float(values[batch].mean())


def measured_again(table: LookupTable, pairs: int, seed: int = 0) -> LookupTable:
    """With the first records measured again: batches they hold, and no weight."""
    rng = np.random.default_rng(seed)
    noisy = table.scores + SEEDS * rng.standard_normal(len(table))
    shift = np.array([SHIFTS[rotation] for rotation in table.rotations[:pairs]])
    again = table.scores[:pairs] + SEEDS * rng.standard_normal(pairs) + shift

    def both(column: np.ndarray) -> np.ndarray:
        return np.concatenate([column, column[:pairs]])

    return replace(
        table,
        batches=(*table.batches, *(batch[::-1] for batch in table.batches[:pairs])),
        sketches=both(table.sketches),
        scores=np.concatenate([noisy, again]),
        designs=(*table.designs, *("again",) * pairs),
        indices=np.arange(len(table) + pairs),
        seconds=both(table.seconds),
        sources=(*table.sources, *table.sources[:pairs]),
        rotations=both(table.rotations),
        weights=np.concatenate([table.weights, np.zeros(pairs)]),
    )

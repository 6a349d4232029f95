"""Small made-up pools for tests: predictions, folds and tables that need no detector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Detections, PoolPredictions
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.records import LookupRecord
from mgral_service.domain.value.design import tilted_batches, uniform_batches
from mgral_service.domain.value.lookup import POOL, LookupTable

CLASSES = ("cat", "dog", "bird")


def predict(count: int, dimension: int = 8, seed: int = 0, most: int = 4) -> PoolPredictions:
    """`count` images with Gaussian embeddings and 0 to `most` detections each."""
    rng = np.random.default_rng(seed)
    ids = tuple(f"img_{number:04d}" for number in range(count))
    image = np.repeat(np.arange(count), rng.integers(0, most + 1, size=count))
    probs = rng.dirichlet(np.ones(len(CLASSES) + 1), size=len(image))
    probs = probs.reshape(len(image), len(CLASSES) + 1)
    detections = Detections(
        ids,
        image,
        np.tile([0.0, 0.0, 9.0, 9.0], (len(image), 1)),
        probs[:, 1:].argmax(axis=1),
        probs[:, 1:].max(axis=1),
        probs,
    )
    return PoolPredictions(ids, rng.standard_normal((count, dimension)) * 3 + 1, detections)


def pool_of(
    count: int = 60,
    labelled: int = 12,
    batch_size: int = 7,
    fold: int | None = None,
    predictions: PoolPredictions | None = None,
    seed: int = 0,
) -> CandidatePool:
    """The first `labelled` images are labelled, the rest are candidates."""
    predictions = predict(count, seed=seed) if predictions is None else predictions
    ids = predictions.ids
    return CandidatePool(
        predictions, ids[:labelled], ids[labelled:], CLASSES, batch_size, fold, ("scoring",)
    )


def record(
    index: int,
    batch: tuple[str, ...],
    score: float = 0.5,
    fold: int | None = 0,
    chosen_by: str = "uniform",
) -> LookupRecord:
    role = {"uniform": "uniform", "tilted": "tilted"}.get(chosen_by, "candidate")
    return LookupRecord("c1", index, role, chosen_by, fold, batch, score, 0, 1.0)  # type: ignore[arg-type]


def measure(
    pools: list[CandidatePool],
    each: int,
    worth: Callable[[CandidatePool, IntArray], float],
    seed: int = 0,
    design: str = "tilted",
) -> LookupTable:
    """A table of `each` batches of every pool, whose score is worth(pool, batch)."""
    draw = tilted_batches if design == "tilted" else uniform_batches
    records: list[LookupRecord] = []
    for pool in pools:
        rng = np.random.default_rng([seed, POOL + 1 if pool.fold is None else pool.fold])
        for batch in draw(pool, each, rng):
            score = worth(pool, batch)
            records.append(record(len(records), pool.names(batch), score, pool.fold, "tilted"))
    return LookupTable.of(records, pools)


def mean_of(values: FloatArray) -> Callable[[CandidatePool, IntArray], float]:
    """Worth of a batch: the mean of its images' values [N]."""
    return lambda pool, batch: float(values[batch].mean())

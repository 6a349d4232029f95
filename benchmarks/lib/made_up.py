"""Made-up pools for benchmarks of speed and of planted values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mgral_service.domain.arrays import IntArray
from mgral_service.domain.boxes import Detections, PoolPredictions
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.records import LookupRecord
from mgral_service.domain.value.design import tilted_batches
from mgral_service.domain.value.lookup import LookupTable

DIMENSION, CLUSTERS = 256, 40
CLASSES = tuple(f"class {number}" for number in range(20))
MOST = 4  # detections an image

Worth = Callable[[IntArray], float]
"""Positions in a pool -> what the batch is worth, a fraction of mAP."""


def predictions(
    images: int, rng: np.random.Generator, dimension: int = DIMENSION
) -> tuple[PoolPredictions, IntArray]:
    """Of `images` images, and the cluster [N] of each. Embeddings lie in clusters, along axes of
    falling spread as a network's do; the classes of the 0 to MOST detections follow the cluster.
    """
    ids = tuple(f"{number:06d}" for number in range(images))
    cluster = rng.integers(CLUSTERS, size=images)
    spread = 1.0 / np.sqrt(1.0 + np.arange(dimension))
    centres = rng.standard_normal((CLUSTERS, dimension))
    noise = rng.standard_normal((images, dimension))
    rotation = np.linalg.qr(rng.standard_normal((dimension, dimension)))[0]
    embeddings = (centres[cluster] + noise) * spread @ rotation
    image = np.repeat(np.arange(images), rng.integers(0, MOST + 1, size=images))
    classes = len(CLASSES)
    habits = rng.dirichlet(np.full(classes + 1, 0.3), size=CLUSTERS)
    probs = 0.5 * habits[cluster[image]] + 0.5 * rng.dirichlet(np.ones(classes + 1), len(image))
    boxes = np.tile([0.0, 0.0, 9.0, 9.0], (len(image), 1))
    best = probs[:, 1:]
    detections = Detections(ids, image, boxes, best.argmax(axis=1), best.max(axis=1), probs)
    return PoolPredictions(ids, embeddings, detections), cluster


def spread_of(pool: CandidatePool, worth: Worth, rng: np.random.Generator) -> tuple[float, float]:
    """Mean and standard deviation of what 200 uniform batches are worth."""
    values = [worth(rng.permutation(pool.candidates)[: pool.batch_size]) for _ in range(200)]
    return float(np.mean(values)), float(np.std(values))


def tilted_table(
    pool: CandidatePool, worth: Worth, records: int, noise: float, rng: np.random.Generator
) -> LookupTable:
    """Tilted batches and what they are worth, measured with normal noise of that standard
    deviation.
    """
    rows = [
        LookupRecord(
            cycle="made up",
            index=index,
            role="tilted",
            chosen_by="tilted",
            fold=None,
            batch=pool.names(batch),
            score=worth(batch) + noise * float(rng.standard_normal()),
            seed=0,
            duration_s=1.0,
        )
        for index, batch in enumerate(tilted_batches(pool, records, rng))
    ]
    return LookupTable.of(rows, [pool])

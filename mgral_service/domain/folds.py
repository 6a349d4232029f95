"""Folds: labelled images divided so that batches can be measured whose labels are known.

In each fold a detector of the training part looks at the candidate part, proxies train on the
training part and a batch of the candidate part with its labels, and the scoring part scores them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mgral_service.domain.pool import PoolSplit

LEAST_LABELLED = 12  # fewer leave no candidate part to choose from
TRAINING, CANDIDATES = 0.37, 0.27  # shares of the labelled images; the rest scores
BATCH = 4  # candidate images for each image of a batch
TURNS = 3  # folds that share one permutation: their candidate parts have no image in common


@dataclass(frozen=True, slots=True)
class Fold:
    """Image ids by part; disjoint. batch_size: images of a batch of the candidate part."""

    number: int
    training: tuple[str, ...]
    candidates: tuple[str, ...]
    scoring: tuple[str, ...]
    batch_size: int


def make_folds(
    split: PoolSplit, folds: int, budget: int, rng: np.random.Generator
) -> tuple[Fold, ...]:
    """`folds` random divisions of the labelled images; none with fewer than LEAST_LABELLED.

    Where the split names scoring images, they are the scoring part of every fold, and the labelled
    images are divided into the other two. A batch is a quarter of the candidate part, and at most
    `budget`.
    """
    labelled = sorted(split.labelled)
    if len(labelled) < LEAST_LABELLED:
        return ()
    whole = TRAINING + CANDIDATES if split.scoring else 1.0
    candidates = max(1, round(CANDIDATES / whole * len(labelled)))
    training = max(1, round(TRAINING / whole * len(labelled)))
    divided = []
    order = rng.permutation(len(labelled))
    for number in range(folds):
        turn = number % TURNS
        if number and not turn:
            order = rng.permutation(len(labelled))
        rotated = np.roll(order, -turn * (len(labelled) // TURNS))
        ids = [labelled[position] for position in rotated]
        divided.append(
            Fold(
                number=number,
                training=tuple(sorted(ids[candidates : candidates + training])),
                candidates=tuple(sorted(ids[:candidates])),
                scoring=split.scoring or tuple(sorted(ids[candidates + training :])),
                batch_size=max(1, min(budget, candidates // BATCH)),
            )
        )
    return tuple(divided)

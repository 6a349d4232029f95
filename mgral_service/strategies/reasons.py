"""Why an image was chosen, in one line for the person who will annotate it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.candidate_pool import CandidatePool, Ranking

_TOP_CLASSES = 3
_LEAST_OBJECTS = 0.1  # expected objects; weaker classes are not worth a word


def explain(
    pool: CandidatePool, chosen_by: str, ranking: Ranking, others: Mapping[str, IntArray]
) -> tuple[str, ...]:
    """[b] sentences: rank and score, uncertainty, novelty, expected classes, and which others chose
    the image too. chosen_by, others: display names; others' batches as positions in the pool.
    """
    entropy = _percentiles(pool, pool.entropy.mean)
    novelty = _percentiles(pool, pool.novelty)
    batches = {name: set(batch.tolist()) for name, batch in others.items()}
    return tuple(
        f"Rank {rank} of {len(ranking.positions)} by {chosen_by} (score {score:.3g}). "
        f"Entropy above {entropy[position]:.0f} % of the pool, "
        f"farther from labelled images than {novelty[position]:.0f} %. "
        f"{_classes(pool, position)}{_agreement(position, batches)}"
        for rank, (position, score) in enumerate(
            zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True), start=1
        )
    )


def _percentiles(pool: CandidatePool, column: FloatArray) -> FloatArray:
    """[N] share of the candidates whose value is lower, in percent."""
    ordered = np.sort(column[pool.candidates])
    return np.asarray(100.0 * np.searchsorted(ordered, column, side="left") / len(ordered))


def _classes(pool: CandidatePool, position: int) -> str:
    objects = pool.expected_objects[position]
    first = np.argsort(-objects, kind="stable")[:_TOP_CLASSES]
    likely = [
        f"{pool.classes[label]} ({objects[label]:.1f})"
        for label in first
        if objects[label] >= _LEAST_OBJECTS
    ]
    return f"Expected objects: {', '.join(likely)}." if likely else "No object is expected."


def _agreement(position: int, batches: Mapping[str, set[int]]) -> str:
    agreeing = [name for name, batch in batches.items() if position in batch]
    return f" Also chosen by {', '.join(agreeing)}." if agreeing else ""

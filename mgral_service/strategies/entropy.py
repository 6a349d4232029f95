"""The most uncertain images by the entropy of their detections, in four ways.

Detections scored 0.05 or more count; an image without any has entropy 0.
"""

from __future__ import annotations

import numpy as np

from mgral_service.domain.acquisition import top_b
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.candidate_pool import CandidatePool, Ranking


def most_uncertain(pool: CandidatePool, entropy: FloatArray, budget: int) -> Ranking:
    """The candidates of highest entropy [N]; ties by id."""
    candidates = pool.candidates
    first = top_b(entropy[candidates], pool.names(candidates), budget)
    return Ranking(candidates[first], entropy[candidates][first])


def pick_by_mean(pool: CandidatePool, budget: int, rng: np.random.Generator) -> Ranking:
    """Favours images whose detections are uncertain throughout."""
    return most_uncertain(pool, pool.entropy.mean, budget)


def pick_by_sum(pool: CandidatePool, budget: int, rng: np.random.Generator) -> Ranking:
    """Favours crowded images."""
    return most_uncertain(pool, pool.entropy.sum, budget)


def pick_by_root(pool: CandidatePool, budget: int, rng: np.random.Generator) -> Ranking:
    """Mean entropy times the root of the expected objects: uncertain throughout, about many."""
    expected = pool.expected_objects.sum(axis=1)
    return most_uncertain(pool, pool.entropy.mean * np.sqrt(expected), budget)


def pick_by_max(pool: CandidatePool, budget: int, rng: np.random.Generator) -> Ranking:
    """Favours images with one very uncertain detection."""
    return most_uncertain(pool, pool.entropy.max, budget)

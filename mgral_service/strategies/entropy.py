"""The most uncertain images by the entropy of their detections, in four ways.

Detections scored 0.05 or more count; an image without any has entropy 0.
"""

from __future__ import annotations

import numpy as np

from mgral_service.domain.acquisition import top_b
from mgral_service.domain.arrays import FloatArray
from mgral_service.strategies.view import PoolView, Ranking


def most_uncertain(view: PoolView, entropy: FloatArray, budget: int) -> Ranking:
    """The unlabelled images of highest entropy [N]; ties by id."""
    pool = view.unlabelled
    first = top_b(entropy[pool], view.names(pool), budget)
    return Ranking(pool[first], entropy[pool][first])


def pick_by_mean(view: PoolView, budget: int, rng: np.random.Generator) -> Ranking:
    """Favours images whose detections are doubtful throughout."""
    return most_uncertain(view, view.entropy.mean, budget)


def pick_by_sum(view: PoolView, budget: int, rng: np.random.Generator) -> Ranking:
    """Favours crowded images."""
    return most_uncertain(view, view.entropy.sum, budget)


def pick_by_root(view: PoolView, budget: int, rng: np.random.Generator) -> Ranking:
    """Mean entropy times the root of the expected objects: doubtful throughout, and about much."""
    expected = view.evidence.sum(axis=1)
    return most_uncertain(view, view.entropy.mean * np.sqrt(expected), budget)


def pick_by_max(view: PoolView, budget: int, rng: np.random.Generator) -> Ranking:
    """Favours images with one very doubtful detection."""
    return most_uncertain(view, view.entropy.max, budget)

"""Core-set: k-center greedy from the labelled images (Sener & Savarese)."""

from __future__ import annotations

import numpy as np

from mgral_service.domain.acquisition import k_center_greedy
from mgral_service.strategies.view import PoolView, Ranking


def pick(view: PoolView, budget: int, rng: np.random.Generator) -> Ranking:
    """Again and again the image farthest from labelled and picked ones; score: that distance."""
    return Ranking(*k_center_greedy(view.points, view.labelled, view.unlabelled, budget))

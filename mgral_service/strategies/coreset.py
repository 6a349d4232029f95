"""Core-set: k-center greedy from the labelled images (Sener and Savarese, 2018)."""

from __future__ import annotations

import numpy as np

from mgral_service.domain.acquisition import k_center_greedy
from mgral_service.domain.candidate_pool import CandidatePool, Ranking


def pick(pool: CandidatePool, budget: int, rng: np.random.Generator) -> Ranking:
    """Repeatedly the image farthest from labelled and picked ones; score: that distance."""
    return Ranking(*k_center_greedy(pool.points, pool.labelled, pool.candidates, budget))

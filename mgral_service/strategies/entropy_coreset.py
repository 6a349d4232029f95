"""Uncertain and diverse: k-center greedy among the 4 B images of highest mean entropy."""

from __future__ import annotations

import numpy as np

from mgral_service.domain.acquisition import k_center_greedy
from mgral_service.domain.candidate_pool import CandidatePool, Ranking
from mgral_service.strategies.entropy import most_uncertain

_SHORTLIST = 4  # times the budget


def pick(pool: CandidatePool, budget: int, rng: np.random.Generator) -> Ranking:
    """Score: the distance to all labelled and picked images when the image was picked."""
    shortlist = most_uncertain(pool, pool.entropy.mean, _SHORTLIST * budget).positions
    return Ranking(*k_center_greedy(pool.points, pool.labelled, np.sort(shortlist), budget))

"""Uniform at random without replacement: the rule to beat."""

from __future__ import annotations

import numpy as np

from mgral_service.domain.candidate_pool import CandidatePool, Ranking


def pick(pool: CandidatePool, budget: int, rng: np.random.Generator) -> Ranking:
    """Images by a random number each, which is also their score."""
    scores = rng.random(len(pool.candidates))
    first = np.argsort(-scores, kind="stable")[:budget]
    return Ranking(pool.candidates[first], scores[first])

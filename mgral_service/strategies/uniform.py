"""Uniform at random without replacement: the rule to beat."""

from __future__ import annotations

import numpy as np

from mgral_service.strategies.view import PoolView, Ranking


def pick(view: PoolView, budget: int, rng: np.random.Generator) -> Ranking:
    """Images by a random number each, which is also their score."""
    lots = rng.random(len(view.unlabelled))
    first = np.argsort(-lots, kind="stable")[:budget]
    return Ranking(view.unlabelled[first], lots[first])

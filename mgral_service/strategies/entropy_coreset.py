"""Uncertain and diverse: k-center greedy among the 4 B images of highest mean entropy."""

from __future__ import annotations

import numpy as np

from mgral_service.domain.acquisition import k_center_greedy
from mgral_service.strategies.entropy import most_uncertain
from mgral_service.strategies.view import PoolView, Ranking

_SHORTLIST = 4  # times the budget


def pick(view: PoolView, budget: int, rng: np.random.Generator) -> Ranking:
    """Score: the distance to all labelled and picked images when the image was picked."""
    shortlist = most_uncertain(view, view.entropy.mean, _SHORTLIST * budget).positions
    return Ranking(*k_center_greedy(view.points, view.labelled, np.sort(shortlist), budget))

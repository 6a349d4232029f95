"""A strategy that needs no table: a rule that picks from a view of the pool."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mgral_service.domain.evidence import Choice
from mgral_service.domain.ports import Query, Report
from mgral_service.strategies.reasons import explain
from mgral_service.strategies.view import PoolView, Ranking

Pick = Callable[[PoolView, int, np.random.Generator], Ranking]
"""Picks min(budget, U) distinct unlabelled positions of the view."""


class Classical:
    """The QueryStrategy around a `Pick`."""

    needs: frozenset[str] = frozenset()

    def __init__(self, name: str, pick: Pick) -> None:
        self.name = name
        self._pick = pick

    def select(self, query: Query, rng: np.random.Generator, report: Report) -> Choice:
        """The rule's pick, each image with its reason."""
        view = PoolView(query.split, query.observation, query.classes)
        return choose(self.name, view, self._pick(view, query.spec.budget, rng))


def choose(name: str, view: PoolView, ranking: Ranking) -> Choice:
    """The choice that a ranking by the strategy `name` makes."""
    reasons = explain(view, name, ranking, {})
    return Choice(name, view.names(ranking.positions), ranking.scores, reasons)

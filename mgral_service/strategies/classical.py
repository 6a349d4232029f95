"""A strategy that needs no table: a rule that picks from a candidate pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mgral_service.domain.candidate_pool import CandidatePool, Ranking
from mgral_service.domain.ports import Query, Report
from mgral_service.domain.records import ProxySpec
from mgral_service.domain.report import Choice
from mgral_service.strategies.reasons import explain

Pick = Callable[[CandidatePool, int, np.random.Generator], Ranking]
"""Picks min(budget, U) distinct candidates of the pool."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An entry of the registry. display_name: as sentences say it."""

    pick: Pick
    display_name: str


class Classical:
    """ports.QueryStrategy around a rule."""

    needs: frozenset[str] = frozenset()

    def __init__(self, name: str, rule: Rule) -> None:
        self.name = name
        self._rule = rule

    def plan(self, query: Query) -> Sequence[ProxySpec]:
        return ()

    def select(self, query: Query, rng: np.random.Generator, report: Report) -> Choice:
        """The rule's pick, each image with its reason."""
        return self.choose(query.pool, rng)

    def choose(self, pool: CandidatePool, rng: np.random.Generator) -> Choice:
        """The rule's pick of pool.batch_size images."""
        ranking = self._rule.pick(pool, pool.batch_size, rng)
        reasons = explain(pool, self._rule.display_name, ranking, {})
        return Choice(self.name, pool.names(ranking.positions), ranking.scores, reasons)

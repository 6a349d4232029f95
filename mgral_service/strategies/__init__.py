"""Selection strategies by name. Add one: its file, and one line here. The exam in `tests/contract`
is taken by every entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import QueryStrategy
from mgral_service.domain.report import Choice
from mgral_service.domain.specs import CycleSpec
from mgral_service.domain.value.models import VALUE_MODELS
from mgral_service.strategies import class_balance, coreset, entropy, entropy_coreset, uniform
from mgral_service.strategies.classical import Classical, Rule

CLASSICAL: Mapping[str, Rule] = {
    "uniform": Rule(uniform.pick, "uniform chance"),
    "entropy_root": Rule(entropy.pick_by_root, "mean entropy times root of objects"),
    "entropy_sum": Rule(entropy.pick_by_sum, "summed entropy"),
    "class_balance": Rule(class_balance.pick, "class balance"),
    "entropy_max": Rule(entropy.pick_by_max, "largest entropy"),
    "entropy": Rule(entropy.pick_by_mean, "mean entropy"),
    "entropy_coreset": Rule(entropy_coreset.pick, "core-set of uncertain images"),
    "coreset": Rule(coreset.pick, "core-set"),
}
"""Those that need no table; all of them are candidates of "mgral", the first ones first where a
table has little room.
"""


def _mgral() -> QueryStrategy:
    from mgral_service.strategies.mgral.select import Mgral  # needs torch; the names alone do not

    return Mgral(CLASSICAL)


STRATEGIES: Mapping[str, Callable[[], QueryStrategy]] = {
    **{name: partial(Classical, name, rule) for name, rule in CLASSICAL.items()},
    "mgral": _mgral,
}


def display_name(name: str) -> str:
    """A strategy's or candidate's name as a sentence says it."""
    return CLASSICAL[name].display_name if name in CLASSICAL else f"the {name}"


def check(spec: CycleSpec) -> None:
    """InvalidInput, before anything trains, for a name that no registry has."""
    for where, name, registry in (
        ("strategy", spec.strategy, STRATEGIES),
        ("table.advanced.value_model", spec.table.advanced.value_model, VALUE_MODELS),
    ):
        if name not in registry:
            raise InvalidInput(where, f"{name!r} is none of {', '.join(registry)}")


def rerank(
    spec: CycleSpec,
    pool: CandidatePool,
    agent: Mapping[str, Any],
    winner: str,
    rng: np.random.Generator,
) -> Choice:
    """The choice of a finished cycle's winner for the batch size of `pool`, without its table.

    `agent` is Choice.agent and `winner` Choice.strategy of that cycle. With the cycle's own budget
    and rng it gives the cycle's images. InvalidInput if the winner is unknown or its weights are
    missing.
    """
    if winner in CLASSICAL:
        return Classical(winner, CLASSICAL[winner]).choose(pool, rng)
    from mgral_service.strategies.mgral.select import rerank_agent

    return rerank_agent(spec, pool, agent, winner)

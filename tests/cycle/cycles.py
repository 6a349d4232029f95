"""A cycle of a pool of 60 images without a store: what tests of `cycle` start from."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.lib.memory_log import MemoryLog
from mgral_service.cycle.context import CycleContext
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.specs import (
    AgentAdvanced,
    AgentSpec,
    CycleSpec,
    TableAdvanced,
    TableSpec,
)
from mgral_service.strategies import STRATEGIES
from tests.doubles import CLASSES, FakeDetector, FakeProxies, ids

NAMES = ids(80)
AGENT = AgentSpec(iterations=3, advanced=AgentAdvanced(draws=4, lane=16))
SPEC = CycleSpec("toy", budget=5, table=TableSpec(records=16, folds=2), agent=AGENT)
PAPER = replace(
    SPEC,
    method="paper",
    choice="agent",
    table=TableSpec(
        records=6, advanced=TableAdvanced(start="initial", design="uniform", value_model="idw")
    ),
)


def split(labelled: int = 30, scoring: int = 0) -> PoolSplit:
    """30 labelled images, 5 test images, the rest to choose from."""
    roles = NAMES[:labelled], NAMES[40 : 40 + scoring], NAMES[55:60], NAMES[60:]
    return PoolSplit(dict.fromkeys(roles[0], 0), roles[3], roles[1], roles[2])


def context(
    spec: CycleSpec = SPEC,
    pool_split: PoolSplit | None = None,
    proxies: FakeProxies | None = None,
    detector: FakeDetector | None = None,
) -> CycleContext:
    pool_split = pool_split or split(scoring=4 if spec.method == "paper" else 0)
    detector = detector or FakeDetector()
    return CycleContext(
        "cyc_toy",
        spec,
        pool_split,
        CLASSES,
        Annotations.empty((*pool_split.labelled, *pool_split.scoring, *pool_split.test)),
        detector,
        detector,
        proxies or FakeProxies(),
        lambda name: STRATEGIES[name](),
    )


def log() -> MemoryLog:
    return MemoryLog()

"""Which proxies a cycle trains: complete before the first of them trains, apart from the batches
that the agent chooses in the folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mgral_service.domain.arrays import IntArray
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.records import ProxySpec, Role
from mgral_service.domain.seeds import Purpose, seed_of, stream
from mgral_service.domain.specs import CycleSpec
from mgral_service.domain.value.design import tilted_batches, uniform_batches
from mgral_service.strategies.classical import Pick

LEAST_UNIFORM = 2  # records a fold: their mean is the zero of its gains
UNIFORM_SHARE = 6  # a uniform batch for so many records


def plan_proxies(
    spec: CycleSpec,
    pool: CandidatePool,
    folds: Sequence[CandidatePool],
    candidates: Mapping[str, Pick],
) -> list[ProxySpec]:
    """All proxies but the agent's. With the paper's method M uniform batches of the pool, without
    their labels; else in each fold uniform batches, a batch of each candidate, and tilted ones.

    The same arguments give the same plan.
    """
    if spec.method == "paper":
        rng = stream(spec.seed, Purpose.DESIGN)
        return [
            _of_pool(spec, pool, index, batch)
            for index, batch in enumerate(uniform_batches(pool, spec.table.records, rng))
        ]
    plan: list[ProxySpec] = []
    for fold in folds:
        for role, chosen_by, batch in _of_fold(spec, fold, folds, candidates):
            plan.append(_with_labels(spec, pool, fold, len(plan), role, chosen_by, batch))
    return plan


def _of_fold(
    spec: CycleSpec,
    fold: CandidatePool,
    folds: Sequence[CandidatePool],
    candidates: Mapping[str, Pick],
) -> list[tuple[Role, str, IntArray]]:
    number = fold.fold or 0
    records = len(range(number, spec.table.records, len(folds))) - 1  # the agent's is to come
    uniform = max(LEAST_UNIFORM, records // UNIFORM_SHARE)
    rng = stream(spec.seed, Purpose.DESIGN, number)
    batches: list[tuple[Role, str, IntArray]] = [
        ("uniform", "uniform", batch) for batch in uniform_batches(fold, uniform, rng)
    ]
    rules = [(name, pick) for name, pick in candidates.items() if name != "uniform"]
    for name, pick in rules[: records - uniform]:
        batches.append(("candidate", name, pick(fold, fold.batch_size, rng).positions))
    draw: Callable[[CandidatePool, int, np.random.Generator], list[IntArray]] = (
        tilted_batches if spec.table.advanced.design == "tilted" else uniform_batches
    )
    design: Role = spec.table.advanced.design
    rest = max(0, records - len(batches))
    batches += [(design, design, batch) for batch in draw(fold, rest, rng)] if rest else []
    return batches


def _with_labels(
    spec: CycleSpec,
    pool: CandidatePool,
    fold: CandidatePool,
    index: int,
    role: Role,
    chosen_by: str,
    batch: IntArray,
) -> ProxySpec:
    """On the training part and a batch of the candidate part, all with labels, and on some images
    of the pool without. The proxies of a fold share their seed, so they differ by the batch alone.
    """
    number = fold.fold or 0
    rng = stream(spec.seed, Purpose.UNLABELLED, number)
    unlabelled = rng.permutation(pool.candidates)[: spec.table.unlabelled]
    return ProxySpec(
        index=index,
        role=role,
        chosen_by=chosen_by,
        fold=fold.fold,
        batch=fold.names(batch),
        labelled=(*fold.names(fold.labelled), *fold.names(batch)),
        unlabelled=pool.names(unlabelled),
        scoring=fold.scoring,
        seed=seed_of(spec.seed, Purpose.PROXY, number),
    )


def _of_pool(spec: CycleSpec, pool: CandidatePool, index: int, batch: IntArray) -> ProxySpec:
    """On all labelled images, and the batch without labels; each proxy with a seed of its own."""
    return ProxySpec(
        index=index,
        role="pool",
        chosen_by="uniform",
        fold=None,
        batch=pool.names(batch),
        labelled=pool.names(pool.labelled),
        unlabelled=pool.names(batch),
        scoring=pool.scoring,
        seed=(seed_of(spec.seed, Purpose.PROXY) + index * spec.table.advanced.repeats) % 2**31,
    )

"""Hindsight records: what batches of images would have brought whose labels are already paid for.

A proxy trained on a base and a batch of a reservoir, all with labels, measures a true gain; a value
model over batch features carries it to batches of the pool. Reservoirs are parts of the scoring
images, which are drawn as the pool is and which the detector has not seen either: the base is all
labelled images, and the other scoring images score. Where these are too few, the labelled images
are divided into base and reservoir. A record's twin, trained on the same images with the batch
unlabelled, is what the paper measures: how alike the two rank batches is the surrogate's fidelity.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mgral_service.domain.arrays import BoolArray, FloatArray
from mgral_service.domain.evidence import Reliability
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.records import AGAIN
from mgral_service.domain.reliability import rank_reliability
from mgral_service.domain.specs import CycleSpec, TableSpec

LEAST_LABELLED = 12  # fewer leave no reservoir to draw different batches from
TWIN_SHARE = 0.2  # of the records, that measure the surrogate's fidelity
POOL_SHARE = 0.3  # of the records, for batches of the pool if the surrogate is worth it


@dataclass(frozen=True, slots=True)
class Division:
    """Images whose labels are known, divided: a batch of `size` images of the reservoir joins the
    base, and `scoring` tell what it brought.
    """

    base: tuple[str, ...]
    reservoir: tuple[str, ...]
    size: int
    scoring: tuple[str, ...]


def divisions(spec: CycleSpec, split: PoolSplit, rng: np.random.Generator) -> tuple[Division, ...]:
    """One a rotation, each image of what is divided in one reservoir; none without hindsight or for
    too few images.

    A batch is min(budget, half the reservoir). No two reservoirs share an image, so that records of
    one tell how well those of others speak of images they have not seen, as the pool's are.
    """
    held = spec.table.draws_from_scoring(len(split.scoring))
    few = not held and len(split.labelled) < LEAST_LABELLED
    if few or spec.table.source == "semi_supervised":
        return ()
    return _divided(spec, split, spec.table.rotations, rng)


def tryouts(
    spec: CycleSpec, split: PoolSplit, count: int, rng: np.random.Generator
) -> tuple[Division, ...]:
    """`count` more, each of half of the scoring images drawn anew and then of the other half, where
    strategies are tried; none where the scoring images do not stand in for the pool.

    What a strategy gains depends on which half it chooses from, and which scores, more than on
    anything else, so it is tried on many.
    """
    if not spec.table.draws_from_scoring(len(split.scoring)):
        return ()
    found: list[Division] = []
    while len(found) < count:
        found += _divided(spec, split, 2, rng)
    return tuple(found[:count])


def _divided(
    spec: CycleSpec, split: PoolSplit, parts: int, rng: np.random.Generator
) -> tuple[Division, ...]:
    held = spec.table.draws_from_scoring(len(split.scoring))
    known = sorted(split.scoring if held else split.labelled)
    shuffled = [known[at] for at in rng.permutation(len(known))]
    found = []
    for turn in range(parts):
        reservoir = tuple(sorted(shuffled[turn::parts]))
        others = tuple(sorted({*known} - {*reservoir}))
        base, scoring = (tuple(split.labelled), others) if held else (others, split.scoring)
        found.append(Division(base, reservoir, min(spec.budget, len(reservoir) // 2), scoring))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Shares:
    """How many records are what: `first` hindsight ones and `twins` of theirs, then `rest`: of the
    pool, or more hindsight if the surrogate means nothing.
    """

    hindsight: int
    twins: int
    rest: int


def shares(spec: TableSpec, divided: bool) -> Shares:
    """Of spec.records; divided: whether there is a reservoir."""
    if not divided or spec.source == "semi_supervised":
        return Shares(0, 0, spec.records)
    if spec.source == "hindsight":
        return Shares(spec.records, 0, 0)
    rest, twins = round(POOL_SHARE * spec.records), max(2, round(TWIN_SHARE * spec.records))
    return Shares(spec.records - twins - rest, twins, rest)


def weigh(
    table: LookupTable, rotations: int, rng: np.random.Generator
) -> tuple[LookupTable, Reliability | None]:
    """The table with weights, and the surrogate's fidelity. rotations: those beyond are tryouts,
    which do not count: their reservoirs share images with those of others, so that with them it
    could not be judged how well a model speaks of images that it has not seen. (Counted in what is
    estimated alone, they made what it chose worse: benchmarks/README.md.)

    Without hindsight records all others count in full. Beside them a record of the pool counts as
    far as the surrogate has been shown to rank batches as their labels do: by the lower end of the
    fidelity's interval. Twins only measure that. A batch that was measured twice counts once, or
    each record would foretell the other; unless there is no second batch to tell it from.
    """
    hindsight = np.array([source == "hindsight" for source in table.sources])
    found = None
    weights = np.ones(len(table))
    if hindsight.any():
        found = fidelity(table, rng)
        trust = 0.0 if found is None else max(0.0, found.low)
        weights = np.where(hindsight, 1.0, np.where(table.rotations == 0, trust, 0.0))
        weights[table.rotations > rotations] = 0.0
    once = np.where(_again(table) | _repeated(table), 0.0, weights)
    return replace(table, weights=once if np.count_nonzero(once) > 1 else weights), found


def _repeated(table: LookupTable) -> BoolArray:
    """[M] records of the other seed, whose level is another."""
    return np.array([design == AGAIN for design in table.designs])


def _again(table: LookupTable) -> BoolArray:
    """[M] records whose batch was measured in the same way before."""
    seen: set[tuple[str, int, frozenset[int]]] = set()
    again = np.zeros(len(table), dtype=np.bool_)
    for at, batch in enumerate(table.batches):
        key = table.sources[at], int(table.rotations[at]), frozenset(batch.tolist())
        again[at] = key in seen
        seen.add(key)
    return again


def fidelity(table: LookupTable, rng: np.random.Generator) -> Reliability | None:
    """How records without labels rank batches that were measured with labels as well; None without
    such pairs.
    """
    with_labels: dict[tuple[int, frozenset[int]], int] = {}
    without: dict[tuple[int, frozenset[int]], int] = {}
    for at, (batch, source) in enumerate(zip(table.batches, table.sources, strict=True)):
        kind = with_labels if source == "hindsight" else without
        kind.setdefault((int(table.rotations[at]), frozenset(batch.tolist())), at)
    pairs = [(with_labels[key], at) for key, at in without.items() if key in with_labels]
    if not pairs:
        return None
    truth, surrogate = (np.array(side) for side in zip(*pairs, strict=True))
    once = np.where(_repeated(table), 0.0, table.weights)
    deviations = replace(table, weights=once).deviations()

    def estimate(rows: FloatArray) -> FloatArray:
        return np.broadcast_to(deviations[surrogate], rows.shape)

    return rank_reliability(estimate, deviations[truth], rng)

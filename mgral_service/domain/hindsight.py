"""Hindsight records: what batches of images would have brought whose labels are already paid for.

The labelled images are divided into a base and a reservoir. A proxy trained on the base and a batch
of the reservoir, all with labels, measures a true gain; a value model over batch features carries
it to batches of the pool. Its twin, trained on the same images with the batch unlabelled, is what
the paper measures: how alike the two rank batches is the surrogate's fidelity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.records import Reliability
from mgral_service.domain.reliability import rank_reliability
from mgral_service.domain.specs import TableSpec

LEAST_LABELLED = 12  # fewer leave no reservoir to draw different batches from
TWIN_SHARE = 0.2  # of the records, that measure the surrogate's fidelity
POOL_SHARE = 0.3  # of the records, for batches of the pool if the surrogate is worth it


@dataclass(frozen=True, slots=True)
class Division:
    """Labelled images, divided: a batch of `size` images of the reservoir joins the base."""

    base: tuple[str, ...]
    reservoir: tuple[str, ...]
    size: int


def divisions(
    labelled: Sequence[str], budget: int, rotations: int, rng: np.random.Generator
) -> tuple[Division, ...]:
    """`rotations` of them, each labelled image in one reservoir; none for too few labelled images.

    A batch is min(budget, half the reservoir). No two reservoirs share an image, so that records of
    one tell how well those of others speak of images they have not seen, as the pool's are.
    """
    if len(labelled) < LEAST_LABELLED:
        return ()
    shuffled = [sorted(labelled)[at] for at in rng.permutation(len(labelled))]
    found = []
    for turn in range(rotations):
        reservoir = shuffled[turn::rotations]
        base = sorted({*shuffled} - {*reservoir})
        size = min(budget, len(reservoir) // 2)
        found.append(Division(tuple(base), tuple(sorted(reservoir)), size))
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


def weigh(table: LookupTable, rng: np.random.Generator) -> tuple[LookupTable, Reliability | None]:
    """The table with weights, and the surrogate's fidelity.

    Without hindsight records all others count in full. Beside them a record of the pool counts as
    far as the surrogate has been shown to rank batches as their labels do: by the lower end of the
    fidelity's interval. Twins only measure that.
    """
    hindsight = np.array([source == "hindsight" for source in table.sources])
    if not hindsight.any():
        return table, None
    found = fidelity(table, rng)
    trust = 0.0 if found is None else max(0.0, found.low)
    weights = np.where(hindsight, 1.0, np.where(table.rotations == 0, trust, 0.0))
    return replace(table, weights=weights), found


def fidelity(table: LookupTable, rng: np.random.Generator) -> Reliability | None:
    """How records without labels rank batches that were measured with labels as well; None without
    such pairs.
    """
    with_labels: dict[tuple[int, frozenset[int]], int] = {}
    without: dict[tuple[int, frozenset[int]], int] = {}
    for at, (batch, source) in enumerate(zip(table.batches, table.sources, strict=True)):
        kind = with_labels if source == "hindsight" else without
        kind[int(table.rotations[at]), frozenset(batch.tolist())] = at
    pairs = [(with_labels[key], at) for key, at in without.items() if key in with_labels]
    if not pairs:
        return None
    truth, surrogate = (np.array(side) for side in zip(*pairs, strict=True))
    deviations = table.deviations()

    def estimate(rows: FloatArray) -> FloatArray:
        return np.broadcast_to(deviations[surrogate], rows.shape)

    return rank_reliability(estimate, deviations[truth], rng)

"""Which batches fill the table: tilted, uniform, and those of cheap strategies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from scipy.stats import ortho_group

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.features import ImageColumns, image_columns
from mgral_service.domain.records import DesignedBatch

CHEAP = (  # of `classical`; where not all find room, the first do
    "entropy_root",
    "entropy",
    "entropy_sum",
    "class_balance",
    "coreset",
    "entropy_max",
)
TILT = 4.0  # tau, standard deviations of a tilt's score
OTHER_WEIGHT = 0.5  # of what is no component, in a tilt's direction
UNIFORM_SHARE = 0.15


def draw(
    kind: Literal["tilted", "uniform"],
    count: int,
    budget: int,
    observation: PoolObservation,
    labelled: IntArray,
    unlabelled: IntArray,
    classical: Mapping[str, IntArray],
    rng: np.random.Generator,
) -> tuple[DesignedBatch, ...]:
    """`count` batches of min(budget, U) unlabelled images; the same arguments and rng state give
    the same.

    "uniform": all uniform at random (the paper). "tilted": the batches of `classical`, by name (at
    most a half of `count`, equal ones once), 15 % uniform for calibration, the rest tilted.
    `labelled`, `unlabelled` and the batches of `classical` are positions in `observation.ids`;
    their order does not matter. ValueError for a classical batch of another size or other images.
    """
    ids = observation.ids
    pool = tuple(sorted(ids[at] for at in unlabelled))
    size = min(budget, len(pool))
    if kind == "uniform":
        return tuple(_uniform(pool, size, rng) for _ in range(count))
    batches = _classical(classical, ids, set(pool), size, count // 2)
    plain = max(1, round(UNIFORM_SHARE * count))
    batches += [_uniform(pool, size, rng) for _ in range(plain)]
    paid = sorted(ids[at] for at in labelled)
    columns = image_columns(observation.subset([*paid, *pool]), np.arange(len(paid)))
    for scores in _tilts(_pool_rows(columns, len(paid)), count - len(batches), rng):
        chosen = gumbel_top(scores, size, rng)
        batches.append(DesignedBatch(tuple(pool[at] for at in chosen), "tilted"))
    return tuple(batches[:count])


def tryout(
    count: int,
    budget: int,
    observation: PoolObservation,
    unlabelled: IntArray,
    classical: Mapping[str, IntArray],
    rng: np.random.Generator,
) -> tuple[DesignedBatch, ...]:
    """`count` batches: those of `classical` (equal ones once), and uniform ones. See `draw`."""
    ids = observation.ids
    pool = tuple(sorted(ids[at] for at in unlabelled))
    size = min(budget, len(pool))
    batches = _classical(classical, ids, set(pool), size, count)
    return (*batches, *(_uniform(pool, size, rng) for _ in range(count - len(batches))))


def gumbel_top(scores: FloatArray, size: int, rng: np.random.Generator) -> IntArray:
    """[size] positions drawn without replacement, each pick in proportion to exp(scores)."""
    return np.argsort(-(scores + rng.gumbel(size=len(scores))), kind="stable")[:size]


def _uniform(pool: tuple[str, ...], size: int, rng: np.random.Generator) -> DesignedBatch:
    chosen = rng.permutation(len(pool))[:size]
    return DesignedBatch(tuple(pool[at] for at in chosen), "uniform")


def _classical(
    classical: Mapping[str, IntArray], ids: Sequence[str], pool: set[str], size: int, most: int
) -> list[DesignedBatch]:
    """One batch a strategy, in the mapping's order; ValueError for one that is not `size` ids of
    the pool.
    """
    batches: list[DesignedBatch] = []
    met: set[frozenset[str]] = set()
    for name, places in classical.items():
        chosen = tuple(ids[at] for at in places)
        batch = frozenset(chosen)
        if len(batch) != size or not batch <= pool:
            raise ValueError(f"the batch of {name!r} is not {size} distinct unlabelled ids")
        if batch not in met and len(batches) < most:
            met.add(batch)
            batches.append(DesignedBatch(chosen, name))
    return batches


def _pool_rows(columns: ImageColumns, labelled: int) -> ImageColumns:
    return ImageColumns(
        columns.points[labelled:],
        columns.components[labelled:],
        columns.uncertainty[labelled:],
        columns.novelty[labelled:],
        columns.evidence[labelled:],
    )


def _tilts(pool: ImageColumns, count: int, rng: np.random.Generator) -> list[FloatArray]:
    """`count` score vectors [U] of spread TILT along random directions of the first components, as
    many as there are tilts, and of expected classes, uncertainty and novelty (OTHER_WEIGHT).

    The directions are orthogonal as long as there are any left, so that a table tells as many
    effects apart as it has records. TILT is strong: what a record tells grows with the square of
    how far its batch lies from a uniform one.
    """
    other = np.column_stack([np.log1p(pool.evidence), pool.uncertainty, pool.novelty])
    columns = np.column_stack([_unit(pool.components[:, :count]), OTHER_WEIGHT * _unit(other)])
    tilts: list[FloatArray] = []
    while len(tilts) < count:
        directions = ortho_group.rvs(columns.shape[1], random_state=rng)
        tilts += [TILT * _unit(columns @ direction) for direction in directions]
    return tilts[:count]


def _unit(values: FloatArray) -> FloatArray:
    """Mean 0 and standard deviation 1 along the first axis; 0 where constant."""
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    return np.asarray(
        np.where(spread > 1e-12, centred / np.where(spread > 1e-12, spread, 1.0), 0.0)
    )

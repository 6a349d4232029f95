"""Selection from pools that do not fit in memory: embeddings in a file, read chunk by chunk.

Two passes: the columns' mean and standard deviation, then the policy's walk with a running top-B;
memory is O(chunk + B). The scores are those of one walk over the standardised matrix, because a
chunk is a number of whole lanes: `policy.walk` cuts N images into lanes of equally many steps,
every lane starts anew, and so lanes may be walked together or one after the other. One lane (0, the
paper's) cannot be cut: its chunk is the whole pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mgral_service.agent.policy import score
from mgral_service.domain.arrays import Float32Array, FloatArray, IntArray
from mgral_service.domain.errors import InvalidInput

LANES = 128  # walked side by side
_BLOCK = 4096  # rows in double precision at a time

Weights = Mapping[str, np.ndarray[Any, Any]]
"""Of a policy with its `lane`, as `policy.weights_of` gives them."""


class Rows(Protocol):
    """A matrix [N, D] that is read in parts: an array, a memory map, or one of the classes here."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray[Any, Any]: ...

    def take(self, positions: IntArray, /, axis: int) -> np.ndarray[Any, Any]:
        """[K, D] the rows at those positions; axis is 0."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddingFile:
    """Rows of a `.npy` file. They are read, not mapped, so that pages of the file never count as
    this process's memory.

    shape [N, D]; offset of the first row in the file, bytes
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int

    @classmethod
    def open(cls, path: Path) -> EmbeddingFile:
        """InvalidInput unless the file holds a matrix of floats, row after row."""
        try:
            mapped = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise InvalidInput(str(path), f"cannot be read as .npy: {error}") from None
        if not (mapped.ndim == 2 and mapped.dtype.kind == "f" and mapped.flags.c_contiguous):
            raise InvalidInput(str(path), "must hold a matrix [N, D] of floats in C order")
        return cls(path, mapped.shape, mapped.dtype, mapped.offset)

    def __getitem__(self, rows: slice, /) -> np.ndarray[Any, Any]:
        start, stop, _ = rows.indices(self.shape[0])
        count, width = max(stop - start, 0), self.shape[1]
        skipped = self.offset + start * width * self.dtype.itemsize
        read = np.fromfile(self.path, self.dtype, count * width, offset=skipped)
        return read.reshape(count, width)

    def take(self, positions: IntArray, /, axis: int) -> np.ndarray[Any, Any]:
        rows = np.empty((len(positions), self.shape[1]), self.dtype)
        with self.path.open("rb", buffering=0) as file:
            for row, position in zip(rows, positions, strict=True):
                file.seek(self.offset + int(position) * row.nbytes)
                file.readinto(row.data)
        return rows


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Of columns, over their finite values: how many, mean, sum of squared deviations; each [D].

    Parts add up, in whatever order, to those of the whole.
    """

    count: IntArray
    mean: FloatArray
    square: FloatArray

    @classmethod
    def of(cls, points: np.ndarray[Any, Any]) -> Moments:
        """Of [N, D], N >= 0."""
        raw = np.asarray(points, dtype=np.float64)
        finite = np.isfinite(raw)
        count = finite.sum(axis=0)
        mean = np.where(finite, raw, 0.0).sum(axis=0) / np.maximum(count, 1)
        apart = np.where(finite, raw - mean, 0.0)
        return cls(count, mean, np.einsum("nd,nd->d", apart, apart))

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        gap, share = other.mean - self.mean, other.count / np.maximum(count, 1)
        square = self.square + other.square + gap**2 * self.count * share
        return Moments(count, self.mean + gap * share, square)

    @property
    def scale(self) -> Scale:
        spread = np.sqrt(self.square / np.maximum(self.count, 1))
        varies = spread > 1e-12 * np.maximum(np.abs(self.mean), 1.0)
        return Scale(self.mean, np.where(varies, spread, np.inf))


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """What `transport.standardise` takes off and divides by; each [D]. A constant column's unit is
    infinite.
    """

    mean: FloatArray
    unit: FloatArray

    def apply(self, points: np.ndarray[Any, Any]) -> Float32Array:
        """[N, D] standardised, block by block."""
        scaled = np.empty(points.shape, np.float32)
        for start in range(0, len(points), _BLOCK):
            raw = np.asarray(points[start : start + _BLOCK], dtype=np.float64)
            scaled[start : start + _BLOCK] = (
                np.where(np.isfinite(raw), raw - self.mean, 0.0) / self.unit
            )
        return scaled


@dataclass(frozen=True, slots=True, eq=False)
class Standardised:
    """Rows of a pool, standardised as they are read."""

    pool: Rows
    scale: Scale

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pool.shape

    def __getitem__(self, rows: slice, /) -> Float32Array:
        return self.scale.apply(self.pool[rows])

    def take(self, positions: IntArray, /, axis: int) -> Float32Array:
        return self.scale.apply(self.pool.take(positions, axis=axis))


def standardised(pool: Rows) -> Standardised:
    """As `transport.standardise`, to the accuracy of float32; reads the pool once."""
    total = Moments.of(pool[:0])
    for start in range(0, pool.shape[0], _BLOCK):
        total += Moments.of(pool[start : start + _BLOCK])
    return Standardised(pool, total.scale)


def lane_steps(count: int, lane: int) -> int:
    """Images in each lane of a walk over `count` >= 1 images: `policy.walk`'s rule."""
    lanes = 1 if lane == 0 else -(-count // lane)
    return -(-count // lanes)


def score_lanes(weights: Weights, points: np.ndarray[Any, Any], steps: int) -> FloatArray:
    """Scores [N] of standardised points [N, D], lane after lane of `steps` images from the first
    on.

    The last lane is filled up as in a walk over the whole pool, so that N may be any part of it
    that starts with a lane.
    """
    missing = np.zeros((-len(points) % steps, points.shape[1]), points.dtype)
    whole = np.concatenate([points, missing]) if len(missing) else points
    return score({**weights, "lane": np.array([steps])}, whole)[: len(points)]


def lane_scorer(
    weights: Weights, scale: Scale, steps: int
) -> Callable[[np.ndarray[Any, Any]], FloatArray]:
    """`score_lanes` of states as predicted: what an actor of a cluster holds."""
    return lambda points: score_lanes(weights, scale.apply(points), steps)


def walk_chunks(weights: Weights, points: Rows) -> Iterator[tuple[int, FloatArray]]:
    """(position of its first image, its scores) of each chunk of standardised points [N, D]."""
    count = points.shape[0]
    if not count:
        return
    steps = lane_steps(count, int(np.asarray(weights["lane"]).item()))
    for start in range(0, count, LANES * steps):
        yield start, score_lanes(weights, points[start : start + LANES * steps], steps)


class Best:
    """The `size` highest of the scores shown so far; ties by position, as in `reinforce.greedy`.

    positions and scores: [min(size, shown)] best first
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.positions: IntArray = np.zeros(0, np.int64)
        self.scores: FloatArray = np.zeros(0)

    def add(self, positions: IntArray, scores: FloatArray) -> None:
        """Any part of the pool, in any order; a position once."""
        if 0 < self._size <= len(self.scores):
            hopeful = scores >= self.scores[-1]
            positions, scores = positions[hopeful], scores[hopeful]
        positions = np.concatenate([self.positions, positions])
        scores = np.concatenate([self.scores, scores])
        first = np.lexsort((positions, -scores))[: self._size]
        self.positions, self.scores = positions[first], scores[first]


def select(weights: Weights, points: Rows, size: int) -> Best:
    """The top-B of the policy's walk over all standardised points [N, D]."""
    best = Best(size)
    for start, scores in walk_chunks(weights, points):
        best.add(start + np.arange(len(scores)), scores)
    return best

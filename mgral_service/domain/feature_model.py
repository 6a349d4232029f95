"""What value models over batch features share: filling a batch, and forgetting a rotation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Self

import numpy as np

from mgral_service.domain.arrays import BoolArray, FloatArray, IntArray
from mgral_service.domain.features import BatchFeatures
from mgral_service.domain.frame import Frame
from mgral_service.domain.lookup import LookupTable

_PARTS = 64  # in which a batch is filled


class FeatureModel(ABC):
    """A value model whose estimate is smooth in a batch's features. name: in VALUE_MODELS."""

    name: ClassVar[str]
    _table: LookupTable
    _frame: Frame

    def __init__(self, features: BatchFeatures) -> None:
        self.misses = 0  # it answers everywhere; its standard deviation says how well
        self._features = features

    @abstractmethod
    def fit(self, table: LookupTable) -> None:
        """Fit to two records or more that count; InvalidInput for fewer."""

    @abstractmethod
    def slopes(self, begun: IntArray, size: int) -> FloatArray:
        """[F] how the estimate grows with each feature in the frame, at a batch of `size` images
        that so far has those at `begun` (Frame.begun).
        """

    def without(self, rotation: int) -> Self:
        """One that knows no record of a rotation, for batches beside its base. InvalidInput if
        fewer than two records are left that count.
        """
        table = self._table
        weights = np.where(table.rotations == rotation, 0.0, table.weights)
        other = type(self)(self._features.beside(table.bases[rotation]))
        other.fit(replace(table, weights=weights))
        return other

    def far(self, batches: Sequence[IntArray]) -> BoolArray:
        """[K] None is: it answers everywhere."""
        return np.zeros(len(batches), dtype=np.bool_)

    def fill(self, pool: IntArray, size: int) -> tuple[IntArray, FloatArray]:
        """All of `pool` [U] in the order in which a batch of `size` is filled best, and [U] the
        values by which each was taken.

        Greedy: a part of the batch after the other, each the images that add most by the slopes
        there to those before (BatchFeatures.linear_values), what is open being like the pool; ties
        in the order of `pool`. What the batch leaves is one more part.
        """
        order = np.zeros(0, dtype=np.int64)
        found: list[FloatArray] = []
        left = pool
        filled = min(size, len(pool))
        ends = np.linspace(0, filled, min(_PARTS, filled) + 1).astype(np.int64)
        for count in (*np.diff(ends), len(pool)):
            weights = self.slopes(order, filled) / self._frame.scale
            values = self._features.linear_values(weights, filled, order)[left]
            first = np.argsort(-values, kind="stable")[:count]
            order, left = np.append(order, left[first]), np.delete(left, first)
            found.append(values[first])
        return order, np.concatenate(found)

"""The pool as strategies look at it: images in the order of their ids, so that no other order
matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mgral_service.domain.acquisition import (
    ImageEntropy,
    class_evidence,
    image_entropy,
    nearest_distance,
)
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.features import agent_state, aligned_detections
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.specs import AgentState
from mgral_service.domain.transport import standardise


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """What a strategy picks: positions [b] in the view, best first, each with a score [b]."""

    positions: IntArray
    scores: FloatArray


class PoolView:
    """Labelled and unlabelled images, and with `replayed` the scoring images that were observed,
    sorted by id: N in all, U unlabelled.

    ids          [N]; labelled [L] and unlabelled [U] are positions in it, ascending
    observation  of exactly these images, in this order
    points       [N, D] standardised embeddings
    """

    def __init__(
        self,
        split: PoolSplit,
        observation: PoolObservation,
        classes: tuple[str, ...],
        replayed: bool = False,
    ) -> None:
        """InvalidInput if a labelled or unlabelled image was not observed."""
        ids = sorted([*split.labelled, *split.unlabelled])
        observed = set(observation.ids)
        for name in ids:
            if name not in observed:
                raise InvalidInput(f"image {name}", "is in the pool but was not observed")
        if replayed:
            ids = sorted([*ids, *(observed & {*split.scoring})])
        self.ids = tuple(ids)
        self.classes = classes
        self._place = {name: at for at, name in enumerate(ids)}
        self._observed = observation.ids
        self.observation = observation.subset(ids)
        open_ids = set(split.unlabelled)
        self.labelled = self.places(sorted(split.labelled))
        self.unlabelled = self.places(sorted(open_ids))
        self.points = standardise(self.observation.embeddings)

    def states(self, kind: AgentState) -> FloatArray:
        """[N, S] what a policy sees of each image (AgentSpec.state), standardised."""
        return standardise(agent_state(self.observation, len(self.classes), kind))

    @cached_property
    def entropy(self) -> ImageEntropy:
        """[N] three ways."""
        return image_entropy(aligned_detections(self.observation))

    @cached_property
    def novelty(self) -> FloatArray:
        """[N] distance to the nearest labelled image, standardised embedding units."""
        return nearest_distance(self.points, self.points[self.labelled])

    @cached_property
    def evidence(self) -> FloatArray:
        """[N, C] expected objects of each class."""
        return class_evidence(aligned_detections(self.observation), len(self.classes))

    def places(self, names: Sequence[str]) -> IntArray:
        """Positions of ids; KeyError for one that is not here."""
        return np.array([self._place[name] for name in names], dtype=np.int64)

    def move(self, table: LookupTable) -> LookupTable:
        """A table over the query's observation, as positions here; InvalidInput for images that
        have no role in the split.
        """
        moved = np.array([self._place.get(name, -1) for name in self._observed], dtype=np.int64)
        batches = tuple(moved[batch] for batch in table.batches)
        if any((batch < 0).any() for batch in batches):
            raise InvalidInput("table", "holds images that are in no role of this cycle's pool")
        return replace(table, batches=batches, bases=tuple(moved[base] for base in table.bases))

    def names(self, positions: IntArray) -> tuple[str, ...]:
        return tuple(self.ids[at] for at in positions)

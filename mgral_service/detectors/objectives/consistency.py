"""What `fit` asks of an objective L_U on images of which some have no label."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.net import DetectorNet, NetInput, RawOutput


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Inputs of the network in one step.

    inputs  one forward pass each; the first begins with the batch itself
    blend   lambda of ISD's mixture
    """

    inputs: tuple[NetInput, ...]
    blend: float = 1.0


class ConsistencyLoss(ABC):
    """L_U on all images of a batch, labelled or not.

    needs_teacher  it compares with the averaged weights, which then predict each batch once
    makes_images   it trains on images made from the batch, so features cannot be cached
    """

    needs_teacher = False
    makes_images = False

    def views(self, batch: Batch, rng: np.random.Generator) -> Views:
        """The batch alone, or its features."""
        return Views((batch.inputs,))

    @abstractmethod
    def loss(
        self, net: DetectorNet, raw: Sequence[RawOutput], views: Views, teacher: RawOutput | None
    ) -> Tensor:
        """A scalar from the raw outputs of `views.inputs`, and the teacher's of the batch."""

"""What `fit` asks of an objective L_U on images of which some have no label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.net import DetectorNet, RawOutput, Seen


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """What the network looks at in one step.

    inputs  one forward pass each; the first begins with the batch itself
    blend   lambda of ISD's mixture
    """

    inputs: tuple[Seen, ...]
    blend: float = 1.0


class ConsistencyLoss(Protocol):
    """L_U on all images of a batch, labelled or not.

    taught: it compares with the averaged weights, which then look at each batch once
    """

    taught: bool

    def views(self, batch: Batch, rng: np.random.Generator) -> Views: ...

    def loss(
        self,
        net: DetectorNet,
        raw: Sequence[RawOutput],
        views: Views,
        teacher: RawOutput | None,
    ) -> Tensor:
        """A scalar from the raw outputs of `views.inputs`, and the teacher's of the batch."""
        ...

"""Detectors and semi-supervised objectives: one file and one line here for each."""

from collections.abc import Callable

from mgral_service.detectors.isd import ConsistencyLoss, CsdLoss, IsdLoss
from mgral_service.detectors.net import DetectorNet
from mgral_service.detectors.ssdlite import SsdLite

DETECTORS: dict[str, Callable[[int, int, bool], DetectorNet]] = {"ssdlite": SsdLite}
"""name -> (classes, training side in pixels, freeze the backbone) -> network"""

OBJECTIVES: dict[str, Callable[[], ConsistencyLoss]] = {"isd": IsdLoss, "csd": CsdLoss}

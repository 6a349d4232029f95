"""Detectors and semi-supervised objectives: one file and one line here for each."""

from collections.abc import Callable

from mgral_service.detectors.consistency import ConsistencyLoss
from mgral_service.detectors.isd import CsdLoss, IsdLoss
from mgral_service.detectors.net import DetectorNet
from mgral_service.detectors.retinanet import RetinaNet
from mgral_service.detectors.sed import SedLoss
from mgral_service.detectors.ssd300 import Ssd300
from mgral_service.detectors.ssdlite import SsdLite
from mgral_service.detectors.teacher import DenseTeacherLoss

DETECTORS: dict[str, Callable[[int, int, bool], DetectorNet]] = {
    "ssdlite": SsdLite,
    "ssd300": Ssd300,
    "retinanet": RetinaNet,
}
"""name -> (classes, training side in pixels, freeze the backbone) -> network"""

OBJECTIVES: dict[str, Callable[[], ConsistencyLoss]] = {
    "isd": IsdLoss,
    "csd": CsdLoss,
    "sed": SedLoss,
    "dense_teacher": DenseTeacherLoss,
}

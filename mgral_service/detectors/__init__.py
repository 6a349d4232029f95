"""Detectors and semi-supervised objectives by name: add one = its file and one line here.

Settings are checked on machines without torch, so an entry imports its class when it builds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.specs import CycleSpec, DetectorSpec, TableSpec

if TYPE_CHECKING:
    from mgral_service.detectors.net import DetectorNet
    from mgral_service.detectors.objectives.consistency import ConsistencyLoss

STRIDE = 32  # training sides are multiples of it


@dataclass(frozen=True, slots=True)
class DetectorEntry:
    """path: module and class below this package.

    objectives       names in OBJECTIVES that suit its outputs, the default first: "csd" and "isd"
                     need classes that compete by softmax, "sed" levels that share one head
    fixed_size       the only training side it takes, pixels; None: multiples of STRIDE
    default_weights  initial weights where detector.weights is None; None: random ones
    """

    path: str
    objectives: tuple[str, ...]
    fixed_size: int | None = None
    default_weights: str | None = None

    def build(self, classes: int, size: int, freeze: bool) -> DetectorNet:
        """size: training side, pixels; freeze: the backbone keeps its initial weights."""
        net: DetectorNet = _class(self.path)(classes, size, freeze)
        return net


def build_objective(name: str) -> ConsistencyLoss:
    """The objective of OBJECTIVES."""
    objective: ConsistencyLoss = _class(OBJECTIVES[name])()
    return objective


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(f"{__name__}.{module}"), name)


_SSD = ("csd", "isd", "dense_teacher")

DETECTORS: Mapping[str, DetectorEntry] = {
    "ssdlite": DetectorEntry("nets.ssdlite.SsdLite", _SSD, default_weights="ImageNet's"),
    "ssd300": DetectorEntry("nets.ssd300.Ssd300", _SSD, fixed_size=300),
    "retinanet": DetectorEntry("nets.retinanet.RetinaNet", ("dense_teacher", "sed")),
}

OBJECTIVES: Mapping[str, str] = {
    "csd": "objectives.csd.CsdLoss",
    "isd": "objectives.isd.IsdLoss",
    "dense_teacher": "objectives.dense_teacher.DenseTeacherLoss",
    "sed": "objectives.sed.SedLoss",
}


def check(spec: CycleSpec) -> None:
    """InvalidInput, before anything trains, for a detector or objective that `spec` cannot have."""
    detector = spec.detector
    objective_of(detector, spec.table)
    entry = DETECTORS[detector.name]
    if entry.fixed_size is not None:
        if detector.size != entry.fixed_size:
            raise InvalidInput("detector.size", f"{detector.name} takes {entry.fixed_size}")
    elif detector.size % STRIDE:
        raise InvalidInput("detector.size", f"must be a multiple of {STRIDE}")
    if detector.freeze_backbone and detector.weights is None and entry.default_weights is None:
        raise InvalidInput(
            "detector.weights",
            f"{detector.name} learns nothing from a frozen backbone of random weights: give "
            "weights, or set detector.freeze_backbone = false",
        )


def objective_of(detector: DetectorSpec, table: TableSpec) -> str:
    """table.objective or the default; InvalidInput for an unknown detector or another objective."""
    if detector.name not in DETECTORS:
        raise InvalidInput("detector.name", f"{detector.name!r} is none of {', '.join(DETECTORS)}")
    objectives = DETECTORS[detector.name].objectives
    if table.objective is None:
        return objectives[0]
    if table.objective not in objectives:
        raise InvalidInput(
            "table.objective", f"{detector.name} trains with {', '.join(objectives)}"
        )
    return table.objective

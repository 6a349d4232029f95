"""Names of detectors and objectives: what is refused before anything trains, and what is built."""

import subprocess
import sys
from typing import Any

import pytest

from mgral_service import detectors
from mgral_service.detectors import DETECTORS, OBJECTIVES
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.specs import CycleSpec, DetectorSpec, TableSpec


def spec(objective: str | None = None, **detector: Any) -> CycleSpec:
    return CycleSpec(
        "d", 8, detector=DetectorSpec(**detector), table=TableSpec(objective=objective)
    )


@pytest.mark.parametrize("name", DETECTORS)
def test_an_entry_builds_its_network(name: str) -> None:
    size = DETECTORS[name].fixed_size or 64
    net = DETECTORS[name].build(2, size, True)
    assert (net.classes, net.size, net.freeze) == (2, size, True)
    assert sum(net.levels) == len(net.anchors)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_entry_builds_its_objective_and_some_detector_trains_with_it(name: str) -> None:
    assert callable(detectors.build_objective(name).loss)
    assert any(name in entry.objectives for entry in DETECTORS.values())


@pytest.mark.parametrize(
    "allowed",
    [
        spec(),
        spec("isd"),
        spec(name="ssd300", size=300, weights="vgg16.pth"),
        spec("sed", name="retinanet", freeze_backbone=False),
    ],
)
def test_settings_that_fit_pass(allowed: CycleSpec) -> None:
    detectors.check(allowed)


@pytest.mark.parametrize(
    ("refused", "where", "what"),
    [
        (spec(name="yolo"), "detector.name", "none of ssdlite, ssd300, retinanet"),
        (spec(size=150), "detector.size", "multiple of 32"),
        (spec(name="ssd300", weights="w"), "detector.size", "ssd300 takes 300"),
        (spec("sed"), "table.objective", "ssdlite trains with csd, isd, dense_teacher"),
        (spec("nothing"), "table.objective", "ssdlite trains with"),
        (spec(name="retinanet"), "detector.weights", "freeze_backbone = false"),
    ],
)
def test_settings_that_do_not_fit_are_refused(refused: CycleSpec, where: str, what: str) -> None:
    with pytest.raises(InvalidInput, match=what) as raised:
        detectors.check(refused)
    assert raised.value.where == where


@pytest.mark.parametrize(
    ("name", "usual"), [("ssdlite", "csd"), ("ssd300", "csd"), ("retinanet", "dense_teacher")]
)
def test_an_objective_that_is_not_named_is_the_detectors_usual_one(name: str, usual: str) -> None:
    assert detectors.objective_of(DetectorSpec(name), TableSpec()) == usual
    named = TableSpec(objective="dense_teacher")
    assert detectors.objective_of(DetectorSpec(name), named) == "dense_teacher"


def test_settings_are_checked_without_torch() -> None:
    code = (
        "import sys; from mgral_service import detectors, metrics\n"
        "from mgral_service.domain.specs import CycleSpec\n"
        "detectors.check(CycleSpec('d', 8)); metrics.check(CycleSpec('d', 8))\n"
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

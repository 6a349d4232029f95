"""A small finished cycle: its report, its selection and the image files."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from mgral_service.domain.records import PredictedBox, SelectedImage, Selection
from mgral_service.domain.report import (
    CandidateGain,
    CycleReport,
    Note,
    PhaseTime,
    Reliability,
    RewardPoint,
    TablePoint,
    TableReport,
)
from mgral_service.domain.specs import CycleSpec

EVIL = "<script>alert('$x^2$')</script>"
"""A class name that is neither markup nor a formula."""

CANDIDATES = (
    CandidateGain("entropy_root", 4, 0.02, 0.01, 0.0125, 0.01, 0.016, 0.007),
    CandidateGain("agent", 0, None, None, 0.009, 0.01, 0.009, 0.01),
)

TABLE = TableReport(
    candidates=CANDIDATES,
    reliability=Reliability(4, 0.5, -0.2, 0.9),
    points=(
        TablePoint(0, "uniform", "uniform", 0, 0.30, -0.01, -0.005, 1.0),
        TablePoint(1, "candidate", "entropy_root", 0, 0.32, 0.01, 0.004, 1.0),
        TablePoint(2, "tilted", "tilted", 1, 0.31, 0.0, 0.001, 1.0),
        TablePoint(3, "pool", "uniform", None, 0.31, 0.0, 0.002, 1.0),
    ),
    history=tuple(
        RewardPoint(t, t / 900, t / 800, 0.1, t / 700 if t % 2 else None) for t in (1, 2, 3)
    ),
    misses=0,
    agent_overlap=0.5,
)

REPORT = CycleReport(
    cycle="cyc_1",
    spec=CycleSpec("toy", 2),
    labelled=20,
    unlabelled=10,
    scoring=0,
    test=5,
    phases=(PhaseTime("FITTING", 3.25, "detector from 20 labelled images"),),
    table=TABLE,
    test_before=0.31,
    test_after=0.33,
    notes=(Note("choice", f"The images of {EVIL} were rare."),),
)

SELECTION = Selection(
    cycle="cyc_1",
    dataset="toy",
    requested="mgral",
    strategy="entropy_root",
    images=(
        SelectedImage(
            "img_a", 1, 0.5, f"holds {EVIL}", (PredictedBox((20.0, 20.0, 120.0, 80.0), EVIL, 0.9),)
        ),
        SelectedImage("img_b", 2, 0.25, "unlike the labelled images"),
    ),
)


def image_files(folder: Path) -> dict[str, Path]:
    """By image id; green and grey."""
    files = {}
    for image_id, colour in (("img_a", (10, 200, 10)), ("img_b", (90, 90, 90))):
        files[image_id] = folder / f"{image_id}.png"
        Image.new("RGB", (200, 100), colour).save(files[image_id])
    return files

"""What a cycle leaves in a folder: its selection, its report and the figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgral_service.domain.records import Selection
from mgral_service.domain.report import CycleReport
from mgral_service.report import figures, html


def write(
    out: Path,
    selection: Selection,
    report: CycleReport,
    documents: Mapping[str, Any],
    files: Mapping[str, Path],
    classes: Sequence[str] = (),
    comparison: Mapping[str, float] | None = None,
    counts: figures.Counts | None = None,
) -> tuple[Path, ...]:
    """Paths of what was written: the documents, `contact_sheet.png`, a PNG of each figure, and
    `report.html`, which holds all figures.

    documents   file name -> JSON value, as the service gave it
    files       image_id -> image
    comparison  mAP by name, such as {"before": .41, "chosen": .44, "random": .42}
    counts      boxes by class, such as {"pool": {"cat": 90}, "chosen images": {"cat": 8}}
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, value in documents.items():
        (out / name).write_text(json.dumps(value, indent=2) + "\n")
    figures.contact_sheet(selection, files, out / "contact_sheet.png")
    scores = comparison or figures.scores_of(report)
    drawings = figures.draw(report, selection, classes, scores, counts)
    page = html.page(report, selection, files, drawings, scores)
    for name, drawing in drawings.items():
        drawing.figure.suptitle(drawing.title)
        drawing.figure.savefig(out / f"{name}.png", dpi=144)
    (out / "report.html").write_text(page, encoding="utf-8")
    pictures = (f"{name}.png" for name in ("contact_sheet", *drawings))
    return tuple(out / name for name in (*documents, *pictures, "report.html"))

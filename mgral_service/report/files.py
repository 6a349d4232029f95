"""What a cycle leaves in a folder: its selection, report and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mgral_service.domain.evidence import CycleReport
from mgral_service.domain.records import Selection
from mgral_service.report import figures


def write(
    out: Path,
    selection: Selection,
    report: CycleReport,
    documents: Mapping[str, Any],
    files: Mapping[str, Path],
) -> tuple[Path, ...]:
    """Paths of what was written.

    documents: file name -> JSON value, as the service gave it; files: image_id -> image.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for name, value in documents.items():
        path = out / name
        path.write_text(json.dumps(value, indent=2) + "\n")
        written.append(path)
    figures.contact_sheet(selection, files, out / "contact_sheet.png")
    written.append(out / "contact_sheet.png")
    if report.evidence is not None:
        figures.reward_figure(report.evidence, report.spec.agent.caution, out / "reward.png")
        figures.table_figure(report.evidence, out / "table.png")
        written += [out / "reward.png", out / "table.png"]
    return tuple(written)

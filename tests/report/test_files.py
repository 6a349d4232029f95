from __future__ import annotations

import json
from pathlib import Path

from mgral_service.report import files
from tests.report.sample import REPORT, SELECTION, image_files


def test_a_cycle_leaves_its_documents_figures_and_page(tmp_path: Path) -> None:
    out = tmp_path / "new" / "cycle-1"
    documents = {"report.json": {"cycle": "cyc_1"}}
    paths = files.write(out, SELECTION, REPORT, documents, image_files(tmp_path), ("cat",))
    assert [path.name for path in paths] == [
        "report.json",
        "contact_sheet.png",
        "learning_step.png",
        "candidates.png",
        "table.png",
        "reward.png",
        "class_balance.png",
        "report.html",
    ]
    assert sorted(paths) == sorted(out.iterdir())
    assert json.loads(paths[0].read_text()) == {"cycle": "cyc_1"}

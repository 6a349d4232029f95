from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mgral_service.domain.evidence import Candidate, Evidence, Reliability, RewardPoint, TablePoint
from mgral_service.domain.records import PredictedBox, SelectedImage, Selection
from mgral_service.report import figures

EVIDENCE = Evidence(
    Reliability(3, 0.5, -0.2, 0.9),
    (Candidate("agent", 0.31, 0.01), Candidate("coreset", 0.30, 0.01)),
    tuple(RewardPoint(t, 0.3, 0.32, 0.1, 0.31 if t % 2 else None) for t in range(1, 5)),
    tuple(TablePoint(t, "tilted", 0.3 + t / 100, 0.31, 1.0) for t in range(3)),
    0,
    1.0,
    ("It went well.",),
)


def _pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_contact_sheet_shows_each_image_with_its_boxes(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100), (10, 200, 10)).save(tmp_path / "a.png")
    boxes = (PredictedBox((20.0, 20.0, 120.0, 80.0), "cat", 0.9),)
    one = SelectedImage("img_a", 1, 0.5, "new", boxes)
    selection = Selection("cyc", "toy", "mgral", "agent", (one,))
    figures.contact_sheet(selection, {"img_a": tmp_path / "a.png"}, tmp_path / "sheet.png")
    with_box = _pixels(tmp_path / "sheet.png")
    bare = replace(selection, images=(replace(one, boxes=()),))
    figures.contact_sheet(bare, {"img_a": tmp_path / "a.png"}, tmp_path / "bare.png")
    assert (with_box[:, :, 1] == 200).sum() > 10_000  # the picture itself
    assert (with_box != _pixels(tmp_path / "bare.png")).any()


def test_the_contact_sheet_shows_grey_of_16_bits_as_detectors_see_it(tmp_path: Path) -> None:
    grey = np.full((100, 200), 0x80FF, dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    one = SelectedImage("img_a", 1, 0.5, "new")
    selection = Selection("cyc", "toy", "mgral", "agent", (one,))
    figures.contact_sheet(selection, {"img_a": tmp_path / "a.png"}, tmp_path / "sheet.png")
    assert (_pixels(tmp_path / "sheet.png") == 0x80).sum() > 30_000


def test_records_of_no_weight_are_not_drawn(tmp_path: Path) -> None:
    figures.table_figure(EVIDENCE, tmp_path / "table.png")
    more = (*EVIDENCE.table, TablePoint(9, "tilted", 0.9, 0.1, 1.0, weight=0.0))
    figures.table_figure(replace(EVIDENCE, table=more), tmp_path / "more.png")
    assert (_pixels(tmp_path / "table.png") == _pixels(tmp_path / "more.png")).all()


def test_the_curves_are_drawn(tmp_path: Path) -> None:
    figures.reward_figure(EVIDENCE, 0.5, tmp_path / "reward.png")
    figures.table_figure(EVIDENCE, tmp_path / "table.png")
    for name in ("reward.png", "table.png"):
        assert len(np.unique(_pixels(tmp_path / name))) > 10

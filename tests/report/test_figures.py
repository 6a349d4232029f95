from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mgral_service.domain.records import SelectedImage, Selection
from mgral_service.report import figures
from tests.report.sample import EVIL, REPORT, SELECTION, TABLE, image_files

COMPARISON = {"before": 0.31, "chosen": 0.34, "random": 0.32}


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_contact_sheet_shows_each_image_with_its_boxes(tmp_path: Path) -> None:
    files = image_files(tmp_path)
    figures.contact_sheet(SELECTION, files, tmp_path / "sheet.png")
    bare = replace(SELECTION, images=tuple(replace(image, boxes=()) for image in SELECTION.images))
    figures.contact_sheet(bare, files, tmp_path / "bare.png")
    sheet = pixels(tmp_path / "sheet.png")
    assert (sheet == (10, 200, 10)).all(-1).sum() > 10_000  # the picture itself
    assert (sheet != pixels(tmp_path / "bare.png")).any()


def test_a_thumbnail_shows_grey_of_16_bits_as_detectors_see_it(tmp_path: Path) -> None:
    grey = np.full((100, 200), 0x80FF, dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    thumbnail = figures.thumbnail((), tmp_path / "a.png", 50)
    assert thumbnail.size == (50, 25)
    assert (np.asarray(thumbnail) == 0x80).all()


def test_a_cycle_with_a_table_has_five_figures(tmp_path: Path) -> None:
    drawings = figures.draw(REPORT, SELECTION, (), COMPARISON, None)
    assert list(drawings) == ["learning_step", "candidates", "table", "reward", "class_balance"]
    for name, drawing in drawings.items():
        drawing.figure.savefig(tmp_path / f"{name}.png")
        assert len(np.unique(pixels(tmp_path / f"{name}.png"))) > 10
    assert "random 0.3200" in drawings["learning_step"].caption
    assert "Spearman 0.50 (-0.20 to 0.90)" in drawings["table"].caption


def test_a_cycle_without_a_table_and_answers_has_no_figures() -> None:
    report = replace(REPORT, table=None, test_after=None)
    empty = replace(SELECTION, images=SELECTION.images[1:])
    assert figures.draw(report, empty, ("cat",), figures.scores_of(report), None) == {}


def test_the_papers_table_has_no_candidates() -> None:
    paper = replace(REPORT, table=replace(TABLE, candidates=(), history=(), reliability=None))
    drawings = figures.draw(paper, SELECTION, (), {}, None)
    assert list(drawings) == ["table", "class_balance"]


def test_the_learning_step_is_taken_on_test_images_where_there_are_some() -> None:
    assert figures.scores_of(REPORT) == {"before": 0.31, "chosen": 0.33}
    scoring = replace(REPORT, test_before=None, test_after=None, scoring_before=0.2)
    assert figures.scores_of(scoring) == {"before": 0.2}


def test_class_balance_takes_many_classes_and_series() -> None:
    classes = tuple(f"class {number}" for number in range(80))
    pool: dict[str, float] = {name: 80.0 - row for row, name in enumerate(classes)}
    drawing = figures.class_balance(classes, {"pool": pool, "chosen": {"class 79": 3.0}})
    assert f"The {figures.MOST_CLASSES} commonest of 80 classes" in drawing.caption
    labels = [label.get_text() for label in drawing.figure.axes[0].get_yticklabels()]
    assert labels == list(classes[: figures.MOST_CLASSES])


def test_predicted_boxes_are_counted_by_class() -> None:
    assert figures.predicted_counts(SELECTION) == {EVIL: 1}
    images = (SelectedImage("img_b", 1, 1.0, ""),)
    assert figures.predicted_counts(Selection("c", "d", "uniform", "uniform", images)) == {}

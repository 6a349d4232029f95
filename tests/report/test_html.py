from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from mgral_service.domain.report import CycleReport
from mgral_service.report import figures, html
from tests.report.sample import EVIL, REPORT, SELECTION, image_files

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on a tag that is not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def written(path: Path, report: CycleReport) -> Path:
    """The page of a cycle; its images lie beside it."""
    scores = {"before": 0.31, "chosen": 0.34, "random": 0.32}
    drawings = figures.draw(report, SELECTION, (EVIL, "cat"), scores, None)
    files = image_files(path.parent)
    path.write_text(html.page(report, SELECTION, files, drawings, scores), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("report") / "r.html", REPORT)


def test_the_page_is_self_contained(path: Path) -> None:
    page = Page(path)
    sources = [value for name, value in page.attributes if name in {"src", "href", "xlink:href"}]
    assert all(value.startswith(("#", "data:image/jpeg;base64,")) for value in sources)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert 20_000 < len(text) < 400_000


def test_names_from_a_dataset_stay_text(path: Path) -> None:
    page = Page(path)
    assert "script" not in page.tags
    assert f"The images of {EVIL} were rare." in page.text
    assert f"holds {EVIL}" in page.text
    assert page.text.count(EVIL) >= 3  # in the figure of class balance as well


def test_the_page_holds_what_the_cycle_gave(path: Path) -> None:
    page = Page(path)
    for text in ("0.3100", "0.3400", "+0.0300", "0.3200", "+0.0100"):
        assert text in page.text
    assert "+0.0125 ±\u00a00.0100" in page.text
    assert "not measured" in page.text
    assert "3.2 s" in page.text
    assert "1. score 0.5" in page.text
    assert page.tags.count("svg") == page.tags.count("figure") == 5
    assert page.tags.count("img") == 2
    labels = [value for name, value in page.attributes if name in {"alt", "aria-label"}]
    assert len(labels) == 7
    assert all(labels)


def test_no_two_figures_share_an_id(path: Path) -> None:
    ids = [value for name, value in Page(path).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_thumbnails_are_small_pictures(path: Path) -> None:
    sources = [value for name, value in Page(path).attributes if name == "src"]
    with Image.open(io.BytesIO(base64.b64decode(sources[0].partition(",")[2]))) as picture:
        assert (picture.format, max(picture.size)) == ("JPEG", html.THUMBNAIL)


def test_the_same_cycle_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = written(tmp_path / "r.html", REPORT)
    assert again.read_bytes() == path.read_bytes()


def test_a_cycle_without_a_table_has_a_page_too(tmp_path: Path) -> None:
    report = replace(REPORT, table=None, notes=(), phases=(), test_before=None, test_after=None)
    page = Page(written(tmp_path / "r.html", report))
    assert "Candidates" not in page.text
    assert page.tags.count("img") == 2

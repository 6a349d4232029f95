"""The documentation agrees with the code: links, settings, routes and errors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints
from unittest.mock import MagicMock

import pytest

from mgral_service.domain.recipes import paper
from mgral_service.domain.specs import ExperimentSpec

ROOT = Path(__file__).parents[1]
FOLDERS = ("*.md", "docs/*.md", "deploy/*.md", "benchmarks/*.md")
PAGES = sorted(path for pattern in FOLDERS for path in ROOT.glob(pattern))
MOST_WORDS = 1300
CODE = r"`([^`]+)`"


def prose(page: Path) -> str:
    """Without blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= MOST_WORDS


def settings(spec: type[Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting's key and default; those of a cycle as a request has them."""
    kinds = get_type_hints(spec)
    for field in fields(spec):
        kind, key = kinds[field.name], f"{path}{field.name}"
        if is_dataclass(kind):
            assert isinstance(kind, type)
            yield from settings(kind, f"{key}.")
        else:
            yield key.removeprefix("cycle."), field.default


def leaves(keys: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in keys.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def same(written: str, value: Any) -> bool:
    """A value written as JSON, numbers to four digits."""
    expected = list(value) if isinstance(value, tuple) else value
    if isinstance(value, float | tuple):
        return bool(json.loads(written) == pytest.approx(expected, rel=1e-3))
    return bool(json.loads(written) == expected)


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs/settings.md").read_text("utf-8").partition("## Two recipes")[0]
    row = re.compile(rf"^\| `([a-z_.]+)` \| (?:{CODE}|required) \|", re.MULTILINE)
    rows, expected = dict(row.findall(text)), dict(settings(ExperimentSpec))
    assert set(rows) == set(expected)
    for key, default in expected.items():
        if default is MISSING:
            assert rows[key] == "", key
        else:
            assert same(rows[key], default), key


def test_every_value_of_the_paper_is_documented() -> None:
    text = (ROOT / "docs/settings.md").read_text("utf-8").partition("## Two recipes")[2]
    row = rf"^\| {CODE} \| {CODE} \| {CODE}(?:; `retinanet`: {CODE})? \|$"
    rows = {key: rest for key, *rest in re.findall(row, text, re.MULTILINE)}
    defaults = dict(settings(ExperimentSpec))
    coco = dict(leaves(paper("retinanet", 200)))
    changed = {
        key: value
        for key, value in leaves(paper("ssd300", 200))
        if key != "method" and value != defaults[key]
    }
    assert set(rows) == set(changed)
    for key, (default, written, written_coco) in rows.items():
        assert same(default, defaults[key]), key
        if key == "table.steps":
            assert written == "detector.steps"
            continue
        assert same(written, changed[key]), key
        assert same(written_coco or written, coco[key]), key


def test_every_route_and_error_is_documented() -> None:
    from mgral_service.domain import errors
    from mgral_service.gateway.app import create_app
    from mgral_service.gateway.problems import CODES, STATUS, code_of

    text = (ROOT / "docs/api.md").read_text("utf-8")
    paths = create_app(MagicMock(token=None)).openapi()["paths"]
    routes = {f"{method.upper()} {path}" for path, item in paths.items() for method in item}
    assert {route for route in routes if f"`{route}`" not in text} == set()
    heirs = {heir for kind in STATUS for heir in kind.__subclasses__()}
    kinds = {*STATUS, *(heir for heir in heirs if heir.__module__ == errors.__name__)}
    codes = {*CODES.values(), *map(code_of, kinds)}
    assert {code for code in codes if f"`{code}`" not in text} == set()

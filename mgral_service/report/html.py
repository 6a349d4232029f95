"""The report of a cycle as one HTML file that needs no network and no other file."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from pathlib import Path

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined

from mgral_service.domain.records import SelectedImage, Selection
from mgral_service.domain.report import CycleReport
from mgral_service.report import figures

THUMBNAIL = 240  # pixels
NAMES = {"chosen": "with the chosen images", "random": "with random images"}
"""Of the scores in a comparison, for people."""

_TEMPLATES = Environment(
    loader=PackageLoader("mgral_service.report", "."), autoescape=True, undefined=StrictUndefined
)


def page(
    report: CycleReport,
    selection: Selection,
    files: Mapping[str, Path],
    drawings: Mapping[str, figures.Drawing],
    scores: Mapping[str, float],
) -> str:
    """The text of the file. files: image_id -> image; drawings, scores: of `report.figures`."""
    images = selection.images[: figures.MOST_TILES]
    return _TEMPLATES.get_template("template.html").render(
        report=report,
        selection=selection,
        scores=scores,
        before=next(iter(scores.values()), 0.0),
        names=NAMES,
        drawings=[(drawing, _svg(name, drawing)) for name, drawing in drawings.items()],
        images=[(image, _jpeg(image, files[image.image_id])) for image in images],
    )


def _svg(name: str, drawing: figures.Drawing) -> dict[str, str]:
    """`view` box and `content` of the figure; text and axes follow the page's colour scheme."""
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawing.figure.savefig(out, format="svg", transparent=True)
    svg = out.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'font-family: [^;"]*', "font-family: sans-serif", svg)
    svg = svg.replace(figures.INK, "currentColor").replace("xlink:href", "href")
    _, view, rest = re.split(r'viewBox="([^"]*)"', svg, maxsplit=1)
    return {"view": view, "content": rest[rest.index(">") + 1 :]}


def _jpeg(image: SelectedImage, file: Path) -> str:
    """The thumbnail in base64."""
    out = io.BytesIO()
    figures.thumbnail(image.boxes, file, THUMBNAIL).save(out, "JPEG", quality=80)
    return base64.b64encode(out.getvalue()).decode()

"""The figures of a cycle: what was chosen, why, and what the new labels gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from mgral_service.datasets.images import in_colour
from mgral_service.domain.records import PredictedBox, Selection
from mgral_service.domain.report import CandidateGain, CycleReport, RewardPoint, TableReport

COLUMNS, TILE, MARGIN, CAPTION = 6, 220, 8, 30  # of the contact sheet, pixels
MOST_TILES = 60
MOST_CLASSES = 20  # in the figure of class balance
BOX_COLOUR = (255, 120, 40)
INK, MUTED = "#1b1f24", "#8b949e"  # text and axes; what stands back
BLUE, ORANGE, TEAL = "#2f81f7", "#e8590c", "#12a594"
ROLES = {
    "uniform": (MUTED, "o"),
    "candidate": (ORANGE, "D"),
    "tilted": (BLUE, "^"),
    "pool": (TEAL, "s"),
}
"""Colour and marker of a record's role."""

_INKED = ("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color")
_STYLE: dict[Any, Any] = dict.fromkeys(_INKED, INK) | {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "legend.frameon": False,
    "text.parse_math": False,  # names of classes are no formulas
}

Counts = Mapping[str, Mapping[str, float]]
"""Boxes by class of some images: {what the images are: {class: number}}."""


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """A figure, its title, and a sentence that says what it shows."""

    title: str
    caption: str
    figure: Figure


def draw(
    report: CycleReport,
    selection: Selection,
    classes: Sequence[str],
    scores: Mapping[str, float],
    counts: Counts | None,
) -> dict[str, Drawing]:
    """By name, the figures that the report has numbers for.

    scores  mAP by name, the starting point first
    counts  without them the boxes that the detector predicted in the chosen images
    """
    drawings = {}
    if len(scores) > 1:
        drawings["learning_step"] = learning_step(scores, report.spec.metric)
    table = report.table
    if table is not None:
        if table.candidates:
            drawings["candidates"] = candidate_gains(table.candidates)
        if table.points:
            drawings["table"] = table_scatter(table)
        if table.history:
            drawings["reward"] = reward_curve(table.history)
    counts = counts or {"boxes predicted in the chosen images": predicted_counts(selection)}
    if any(sum(series.values()) for series in counts.values()):
        drawings["class_balance"] = class_balance(classes, counts)
    return drawings


def scores_of(report: CycleReport) -> dict[str, float]:
    """mAP on the test images, else on the scoring images: "before" and "chosen", as there are."""
    before, after = report.test_before, report.test_after
    if before is None:
        before, after = report.scoring_before, report.scoring_after
    scores = {"before": before, "chosen": after}
    return {name: score for name, score in scores.items() if score is not None}


def predicted_counts(selection: Selection) -> dict[str, float]:
    """Boxes by class that the detector predicted in the chosen images."""
    return dict(Counter(box.label for image in selection.images for box in image.boxes))


def learning_step(scores: Mapping[str, float], metric: str) -> Drawing:
    """mAP by name, the starting point first."""
    names, values, rows = list(scores), list(scores.values()), range(len(scores))
    colours = [MUTED, *(BLUE if name == "random" else ORANGE for name in names[1:])]
    with _axes(0.7 + 0.42 * len(names), f"mAP ({metric})") as (figure, axes):
        axes.axvline(values[0], color=MUTED, linewidth=0.8)
        axes.hlines(rows, values[0], values, colours, linewidth=3)
        axes.scatter(values, rows, 64, colours, zorder=3)
        for row, value in zip(rows, values, strict=True):
            axes.annotate(
                f"{value:.3f}", (value, row), (9, 0), textcoords="offset points", va="center"
            )
        axes.margins(x=0.25)
        _rows(axes, names)
    listed = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    return Drawing("The learning step", f"mAP ({metric}): {listed}.", figure)


def candidate_gains(candidates: Sequence[CandidateGain]) -> Drawing:
    """Prior, measured and posterior gain of each candidate, with their standard deviations."""
    height, label = 1.0 + 0.45 * len(candidates), "gain over a uniform batch, mAP"
    series = {
        "prior": [(row.prior, row.prior_sd) for row in candidates],
        "measured": [(row.measured, row.error) for row in candidates],
        "posterior": [(row.posterior, row.posterior_sd) for row in candidates],
    }
    with _axes(height, label, legend=3) as (figure, axes):
        axes.axvline(0.0, color=MUTED, linewidth=0.8)
        for place, (name, intervals) in enumerate(series.items()):
            gains, deviations = np.array(intervals, float).T  # None becomes NaN, which is not drawn
            axes.errorbar(
                gains,
                np.arange(len(candidates)) + 0.24 * (place - 1),
                xerr=np.nan_to_num(deviations),
                fmt="D" if name == "posterior" else "o",
                markersize=4,
                linewidth=2 if name == "posterior" else 1.2,
                color=(MUTED, BLUE, ORANGE)[place],
                label=name,
            )
        _rows(axes, [candidate.name for candidate in candidates])
    best = candidates[0]
    caption = (
        f"Gain of each candidate with one standard deviation. {best.name} has the highest "
        f"posterior gain: {best.posterior:+.4f} ± {best.posterior_sd:.4f}."
    )
    return Drawing("Gain of the candidates", caption, figure)


def table_scatter(table: TableReport) -> Drawing:
    """Estimated against measured gain of each record."""
    with _axes(3.4, "estimated gain, mAP", legend=4) as (figure, axes):
        axes.set_ylabel("measured gain, mAP")
        values = [gain for point in table.points for gain in (point.estimated, point.gain)]
        ends = [min(values), max(values)]
        axes.plot(ends, ends, color=MUTED, linewidth=0.8)
        for role, (colour, marker) in ROLES.items():
            points = [(point.estimated, point.gain) for point in table.points if point.role == role]
            if points:
                label = f"{role} ({len(points)})"
                estimates, gains = zip(*points, strict=True)
                axes.plot(estimates, gains, marker, c=colour, alpha=0.8, ms=5, mew=0, label=label)
    caption = "Each record is a trained proxy; estimated without the records of its fold."
    if table.reliability is not None:
        rank = table.reliability
        caption += f" Spearman {rank.spearman:.2f} ({rank.low:.2f} to {rank.high:.2f})."
    return Drawing("The table: estimated and measured gain", caption, figure)


def reward_curve(history: Sequence[RewardPoint]) -> Drawing:
    """Reward over the iterations of the agent's training."""
    steps = [point.iteration for point in history]
    greedy = [(point.iteration, point.greedy) for point in history if point.greedy is not None]
    with _axes(2.8, "iteration", legend=3) as (figure, axes):
        axes.set_ylabel("reward, mAP")
        axes.plot(steps, [point.best for point in history], color=BLUE, alpha=0.5, label="best")
        axes.plot(steps, [point.reward for point in history], color=BLUE, label="mean")
        if greedy:
            axes.plot(*zip(*greedy, strict=True), ".-", color=ORANGE, label="greedy batch")
    first, last = history[0].reward, history[-1].reward
    caption = f"Mean reward of the agent's draws: {first:+.4f} at first, {last:+.4f} at the end."
    return Drawing("Training of the agent", caption, figure)


def class_balance(classes: Sequence[str], counts: Counts) -> Drawing:
    """Share of each class among the boxes of each series, the commonest of the first series
    first.
    """
    shares = {
        name: {label: count / max(1.0, sum(series.values())) for label, count in series.items()}
        for name, series in counts.items()
    }
    first = next(iter(shares.values()))
    labels = dict.fromkeys([*classes, *(label for series in counts.values() for label in series)])
    order = sorted(labels, key=lambda label: -first.get(label, 0.0))[:MOST_CLASSES]
    height, thickness = 0.9 + len(order) * max(0.24, 0.13 * len(shares)), 0.8 / len(shares)
    colours = (MUTED, ORANGE, BLUE, TEAL) if len(shares) > 1 else (ORANGE,)
    with _axes(height, "share of the boxes", legend=2) as (figure, axes):
        for place, ((name, series), colour) in enumerate(
            zip(shares.items(), colours, strict=False)
        ):
            rows = np.arange(len(order)) + thickness * (place + 0.5) - 0.4
            widths = [series.get(label, 0.0) for label in order]
            axes.barh(rows, widths, thickness, color=colour, label=name)
        _rows(axes, order)
    of_all = f" The {len(order)} commonest of {len(labels)} classes." * (len(order) < len(labels))
    caption = f"Share of each class: {'; '.join(shares)}.{of_all}"
    return Drawing("Class balance", caption, figure)


def contact_sheet(selection: Selection, files: Mapping[str, Path], out: Path) -> None:
    """The chosen images, best first, with the detector's boxes. files: image_id -> path."""
    images = selection.images[:MOST_TILES]
    rows = -(-len(images) // COLUMNS)
    step_x, step_y = TILE + MARGIN, TILE + CAPTION + MARGIN
    sheet = Image.new("RGB", (COLUMNS * step_x + MARGIN, rows * step_y + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for index, image in enumerate(images):
        left, top = MARGIN + index % COLUMNS * step_x, MARGIN + index // COLUMNS * step_y
        tile = thumbnail(image.boxes, files[image.image_id], TILE)
        sheet.paste(tile, (left, top))
        caption = f"{image.rank}. score {image.score:.4g}\n{image.image_id}"
        pen.text((left, top + tile.height + 1), caption, fill="black")
    sheet.save(out)


def thumbnail(boxes: Sequence[PredictedBox], file: Path, side: int) -> Image.Image:
    """The image with its boxes; the longer side measures `side` pixels."""
    with Image.open(file) as opened:
        picture = in_colour(opened)
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    picture = picture.resize((width, height))
    pen = ImageDraw.Draw(picture)
    for box in boxes:
        x0, y0, x1, y1 = (value * scale for value in box.box)
        pen.rectangle((x0, y0, x1, y1), outline=BOX_COLOUR, width=2)
        name, corner = f"{box.label} {box.score:.2f}", (x0 + 3, y0 + 1)
        pen.rectangle(pen.textbbox(corner, name), fill=BOX_COLOUR)
        pen.text(corner, name, fill="black")
    return picture


@contextmanager
def _axes(height: float, label: str, legend: int = 0) -> Iterator[tuple[Figure, Axes]]:
    """A figure of that height in inches, in the style of the report.

    label: of the x axis; legend: its columns, 0: none
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.0, height), layout="constrained")
        axes = figure.subplots()
        axes.grid(color=MUTED, alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.locator_params(nbins=5)
        axes.set_xlabel(label)
        yield figure, axes
        if legend:
            figure.legend(
                loc="outside lower center", ncols=legend, handletextpad=0.4, columnspacing=1
            )


def _rows(axes: Axes, names: Sequence[str]) -> None:
    """Names at 0, 1, ... from the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")

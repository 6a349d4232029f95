"""The pictures of a cycle: what was chosen, how the reward went, how good the estimates are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from mgral_service.datasets.images import in_colour
from mgral_service.domain.evidence import Evidence
from mgral_service.domain.records import Selection

COLUMNS, TILE, MARGIN, CAPTION = 6, 220, 8, 30  # of the contact sheet, in pixels
MOST_TILES = 60
_WITH_LABELS = {"hindsight": "with", "semi_supervised": "without"}


def contact_sheet(selection: Selection, files: Mapping[str, Path], out: Path) -> None:
    """The chosen images, best first, with the detector's boxes. files: image_id -> path."""
    shown = selection.images[:MOST_TILES]
    rows = -(-len(shown) // COLUMNS)
    step_x, step_y = TILE + MARGIN, TILE + CAPTION + MARGIN
    sheet = Image.new("RGB", (COLUMNS * step_x + MARGIN, rows * step_y + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    for at, one in enumerate(shown):
        left, top = MARGIN + at % COLUMNS * step_x, MARGIN + at // COLUMNS * step_y
        with Image.open(files[one.image_id]) as opened:
            picture = in_colour(opened)
        scale = TILE / max(picture.size)
        width, height = (max(1, round(side * scale)) for side in picture.size)
        sheet.paste(picture.resize((width, height)), (left, top))
        for box in one.boxes:
            x0, y0, x1, y1 = (value * scale for value in box.box)
            corners = (left + x0, top + y0, left + x1, top + y1)
            draw.rectangle(corners, outline=(230, 60, 20), width=2)
            name = f"{box.label} {box.score:.2f}"
            draw.text((left + x0 + 3, top + y0 + 2), name, fill=(230, 60, 20))
        caption = f"{one.rank}. score {one.score:.4g}\n{one.image_id}"
        draw.text((left, top + height + 1), caption, fill="black")
    sheet.save(out)


def reward_figure(evidence: Evidence, caution: float, out: Path) -> None:
    """Reward and loss over the iterations of the agent's training, and what the rivals' batches are
    worth: all are estimated means less `caution` standard deviations.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    steps = [point.iteration for point in evidence.history]
    above.plot(steps, [point.reward for point in evidence.history], label="mean of the draws")
    above.plot(
        steps, [point.best for point in evidence.history], alpha=0.5, label="best of the draws"
    )
    greedy = [point for point in evidence.history if point.greedy is not None]
    above.plot(
        [point.iteration for point in greedy],
        [point.greedy for point in greedy],
        "k.-",
        label="greedy top-B",
    )
    for one in evidence.candidates:
        if one.name != "agent":
            worth = one.value - caution * one.sd
            above.axhline(worth, color="grey", linewidth=0.6)
            above.annotate(one.name, (steps[-1], worth), fontsize=7, ha="right", va="bottom")
    above.set_ylabel("estimated mAP, less caution")
    above.legend(loc="center left", fontsize=8)
    above.set_title(f"Training of the agent: the reward {evidence.reliability.verdict}")
    below.plot(steps, [point.loss for point in evidence.history], color="tab:red", linewidth=0.8)
    below.set_ylabel("loss")
    below.set_xlabel("iteration")
    figure.savefig(out, dpi=120)


def table_figure(evidence: Evidence, out: Path) -> None:
    """Each record that counts: its measured mAP against the value model's estimate without it, both
    over the mean of its level.
    """
    counted = [point for point in evidence.table if point.weight > 0]
    gains = {point.index: point.measured - point.level for point in counted}
    shown = {point.index: point.estimated - point.level for point in counted}
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    axes = figure.subplots()
    for source, design in sorted({(point.source, point.design) for point in counted}):
        points = [one.index for one in counted if (one.source, one.design) == (source, design)]
        axes.scatter(
            [gains[index] for index in points],
            [shown[index] for index in points],
            label=f"{design}, {_WITH_LABELS[source]} labels",
            marker="o" if source == "hindsight" else "^",
            s=28,
        )
    values = [*shown.values(), *gains.values()]
    low, high = min(values), max(values)
    axes.plot([low, high], [low, high], color="grey", linewidth=0.8)
    told = evidence.reliability
    axes.set_xlabel("measured mAP of the proxy, over the mean of its kind")
    axes.set_ylabel("estimated without it, over the mean of what was left in")
    axes.set_title(
        f"Lookup table, {told.records} records that the agent did not seek\n"
        f"Spearman {told.spearman:.2f} (95 % interval {told.low:.2f} to {told.high:.2f})"
    )
    axes.legend(fontsize=8)
    figure.savefig(out, dpi=120)

"""Learning curves compared: areas, what it takes to reach the reference, class balance and overlap
of the batches, as a file of points, a figure with bands and a table.

Seeds are paired: the same seed means the same initial images and the same detector seed for every
strategy, so differences are taken seed by seed and the bootstrap draws seeds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.report import CandidateGain, Reliability

DRAWS = 2000
REFERENCE = "uniform"


@dataclass(frozen=True, slots=True)
class Point:
    """A strategy's detector after a cycle (0: before the first), on the test images.

    images, boxes   labelled so far
    seconds         spent on choosing; trainings: of proxies
    batch           ids bought in this cycle; counts: boxes of each class among them
    chosen_by       the strategy, or the winning candidate
    reward          reliability of its value model; candidates: their gains
    more            AP50 of other detectors trained on the same images
    """

    world: str
    strategy: str
    seed: int
    cycle: int
    images: int
    boxes: int
    ap50: float
    ap: float
    seconds: float
    trainings: int
    batch: tuple[str, ...]
    counts: tuple[int, ...]
    chosen_by: str
    more: tuple[float, ...] = ()
    reward: Reliability | None = None
    candidates: tuple[CandidateGain, ...] = ()

    @property
    def mean_ap50(self) -> float:
        return float(np.mean([self.ap50, *self.more]))

    @property
    def measured_share(self) -> float | None:
        """Of the winner's posterior gain: how far it is measured; the rest is the prior."""
        for gain in self.candidates:
            if gain.name == self.chosen_by and gain.error is not None and gain.prior_sd > 0:
                return gain.prior_sd**2 / (gain.prior_sd**2 + gain.error**2)
        return None


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with the 2.5 and 97.5 percentiles of its bootstrap over seeds."""

    mean: float
    low: float
    high: float

    def figures(self, name: str) -> dict[str, float]:
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f})"


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of the table. Gains are over REFERENCE; `_to_match` the labels with which the mean
    curve reaches REFERENCE's last mean AP50, None if it does not. seconds: of choosing, the median
    cycle's; trainings: of a whole run; rewards: what they did, in how many cycles.
    """

    strategy: str
    last: float
    area: float
    gain: Interval
    area_boxes: float
    gain_boxes: Interval
    images_to_match: float | None
    boxes_to_match: float | None
    balance: float
    overlap: float
    overlap_others: float
    seconds: float
    trainings: float
    chosen_by: Mapping[str, int]
    measured_share: float | None

    def figures(self, name: str) -> dict[str, float]:
        """By name; what was not reached has none."""
        figures = {
            "last_ap50": self.last,
            "area": self.area,
            "area_boxes": self.area_boxes,
            "class_balance": self.balance,
            "overlap": self.overlap,
            "seconds": self.seconds,
            "trainings": self.trainings,
        }
        if self.images_to_match is not None:
            figures["images_to_match"] = self.images_to_match
        if self.boxes_to_match is not None:
            figures["boxes_to_match"] = self.boxes_to_match
        if self.strategy != REFERENCE:
            figures |= self.gain.figures("area_gain") | self.gain_boxes.figures("area_boxes_gain")
        return {f"{name}_{key}": value for key, value in figures.items()}


class Curves:
    """The points of one world by strategy, for the seeds that every strategy has finished.

    ValueError if there is no such seed, or no REFERENCE.
    """

    def __init__(self, points: Sequence[Point]) -> None:
        self.strategies = tuple(dict.fromkeys(point.strategy for point in points))
        if REFERENCE not in self.strategies:
            raise ValueError(f"there is no {REFERENCE!r} to compare with")
        by_key = {(point.strategy, point.seed, point.cycle): point for point in points}
        self.cycles = 1 + max(point.cycle for point in points)
        self.seeds = tuple(
            seed
            for seed in sorted({point.seed for point in points})
            if all(
                (name, seed, cycle) in by_key
                for name in self.strategies
                for cycle in range(self.cycles)
            )
        )
        if not self.seeds:
            raise ValueError("no seed was finished by every strategy")
        self._points = by_key

    @property
    def detectors(self) -> int:
        """That a point is the mean of, the least of all."""
        return 1 + min(len(point.more) for point in self._points.values())

    def run(self, strategy: str, seed: int) -> list[Point]:
        """By cycle."""
        return [self._points[strategy, seed, cycle] for cycle in range(self.cycles)]

    def column(self, strategy: str, name: str) -> FloatArray:
        """[seeds, cycles] of a number of the points."""
        rows = [[getattr(point, name) for point in self.run(strategy, seed)] for seed in self.seeds]
        return np.array(rows, dtype=np.float64)

    def areas(self, strategy: str) -> FloatArray:
        """[seeds] under AP50 by images."""
        x, y = self.column(strategy, "images"), self.column(strategy, "mean_ap50")
        return np.array([area(*curve) for curve in zip(x, y, strict=True)])

    def areas_by_boxes(self, strategy: str) -> FloatArray:
        """[seeds] under AP50 by boxes, up to the number that all strategies of the seed reach."""
        ends = np.min([self.column(name, "boxes")[:, -1] for name in self.strategies], axis=0)
        x, y = self.column(strategy, "boxes"), self.column(strategy, "mean_ap50")
        return np.array([area(*cut(a, b, end)) for a, b, end in zip(x, y, ends, strict=True)])

    def summary(self, strategy: str) -> Summary:
        """Means over seeds."""
        last = float(self.column(REFERENCE, "mean_ap50")[:, -1].mean())
        mean = self.column(strategy, "mean_ap50").mean(0)
        areas, boxes = self.areas(strategy), self.areas_by_boxes(strategy)
        runs = [self.run(strategy, seed)[1:] for seed in self.seeds]
        others = [other for other in self.strategies if other != strategy]
        shares = [
            point.measured_share
            for points in runs
            for point in points
            if point.measured_share is not None
        ]
        return Summary(
            strategy,
            float(mean[-1]),
            float(areas.mean()),
            interval(areas - self.areas(REFERENCE)),
            float(boxes.mean()),
            interval(boxes - self.areas_by_boxes(REFERENCE)),
            reached(self.column(strategy, "images").mean(0), mean, last),
            reached(self.column(strategy, "boxes").mean(0), mean, last),
            float(
                np.mean([balance(np.sum([point.counts for point in points], 0)) for points in runs])
            ),
            self.overlap(strategy, (REFERENCE,)),
            self.overlap(strategy, others),
            float(np.median([point.seconds for points in runs for point in points if point.cycle])),
            float(np.mean([sum(point.trainings for point in points) for points in runs])),
            Counter(point.chosen_by for points in runs for point in points),
            float(np.mean(shares)) if shares else None,
        )

    def overlap(self, strategy: str, others: Sequence[str]) -> float:
        """Mean Jaccard index of its batches with those of `others` in the same seed and cycle; 0
        without others.
        """
        indices = [
            jaccard(point.batch, self._points[other, seed, point.cycle].batch)
            for seed in self.seeds
            for point in self.run(strategy, seed)[1:]
            for other in others
        ]
        return float(np.mean(indices)) if indices else 0.0


# --- numbers ------------------------------------------------------------------------------------


def area(x: FloatArray, y: FloatArray) -> float:
    """Under the straight lines between the points, divided by the range of x: a mean height."""
    return float(np.trapezoid(y, x) / (x[-1] - x[0]))


def cut(x: FloatArray, y: FloatArray, end: float) -> tuple[FloatArray, FloatArray]:
    """The curve up to `end`, which lies within the range of the rising x."""
    inside = x < end
    return np.append(x[inside], end), np.append(y[inside], np.interp(end, x, y))


def reached(x: FloatArray, y: FloatArray, level: float) -> float | None:
    """The least x at which the straight lines between the points reach `level`."""
    above = np.flatnonzero(y >= level)
    if not len(above):
        return None
    first = int(above[0])
    if first == 0:
        return float(x[0])
    share = (level - y[first - 1]) / (y[first] - y[first - 1])
    return float(x[first - 1] + share * (x[first] - x[first - 1]))


def balance(counts: FloatArray) -> float:
    """Entropy of the class shares by its maximum: 1 if all classes are equally frequent, 0 if one
    is alone or nothing was counted.
    """
    total = counts.sum()
    if total == 0 or len(counts) < 2:
        return 0.0
    shares = counts[counts > 0] / total
    return float(abs(shares @ np.log(shares)) / np.log(len(counts)))


def jaccard(first: Sequence[str], second: Sequence[str]) -> float:
    shared, either = {*first} & {*second}, {*first} | {*second}
    return len(shared) / len(either) if either else 1.0


def resampled(values: FloatArray) -> FloatArray:
    """[DRAWS, ...] means over seeds drawn with replacement, of values [seeds, ...]; the same draws
    for the same number of seeds.
    """
    drawn = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    means: FloatArray = values[drawn].mean(1)
    return means


def interval(values: FloatArray) -> Interval:
    low, high = np.quantile(resampled(values), [0.025, 0.975])
    return Interval(float(values.mean()), float(low), float(high))


# --- what is written ----------------------------------------------------------------------------


def draw(curves: Curves, title: str, out: Path) -> None:
    """Mean AP50 with its 95 % band, by images and by boxes (there at the mean number of boxes)."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("images", "boxes"), strict=True):
        for strategy in curves.strategies:
            x, y = curves.column(strategy, name).mean(0), curves.column(strategy, "mean_ap50")
            low, high = np.quantile(resampled(y), [0.025, 0.975], axis=0)
            (line,) = axes.plot(x, y.mean(0), "o-", markersize=3, label=strategy)
            axes.fill_between(x, low, high, alpha=0.12, color=line.get_color(), linewidth=0)
        axes.set_xlabel(f"labelled {name}")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("AP50 on the test images")
    panels[0].legend(fontsize=8)
    seeds = len(curves.seeds)
    figure.suptitle(f"{title}: mean of {seeds} paired seeds, 95 % bootstrap band over seeds")
    figure.savefig(out, dpi=120)


HEAD = (
    "strategy", "last AP50", "area by images", "gain over uniform (95 %)", "area by boxes",
    "gain over uniform (95 %)", "images to match", "boxes to match", "class balance",
    "overlap with uniform", "overlap with the others", "seconds a cycle", "trainings", "chosen by",
    "measured share",
)  # fmt: skip


def table(curves: Curves) -> str:
    """Markdown."""
    summaries = [curves.summary(name) for name in curves.strategies]
    rows = [" | ".join(HEAD), " | ".join(["---", *["---:"] * (len(HEAD) - 3), "---", "---"])]
    rows += [" | ".join(_cells(summary)) for summary in summaries]
    many = "one detector" if curves.detectors == 1 else f"{curves.detectors} detectors"
    legend = (
        f"Mean of {len(curves.seeds)} paired seeds. A point is the mean of {many} trained on the "
        "same images; the next cycle goes on from the first. Areas are divided by the range of "
        "labels, those by boxes up to the number that every strategy of this table reaches, so "
        "they change with what is compared. Intervals are percentiles of a bootstrap over seeds, "
        "which with so few seeds are too narrow. To match: labels with which the mean curve "
        f"reaches the last mean AP50 of {REFERENCE}. Class "
        "balance: entropy of the classes of all boxes bought, 1 if equally frequent. Overlap: "
        "mean Jaccard index of the batches of the same seed and cycle. Seconds: of choosing, the "
        "median cycle's. Trainings: of proxies, in all cycles of a run."
    )
    return "\n".join([*(f"| {row} |" for row in rows), "", legend, ""])


def _cells(summary: Summary) -> list[str]:
    own = summary.strategy == REFERENCE
    return [
        summary.strategy,
        f"{summary.last:.4f}",
        f"{summary.area:.4f}",
        "" if own else str(summary.gain),
        f"{summary.area_boxes:.4f}",
        "" if own else str(summary.gain_boxes),
        *(
            "not reached" if count is None else f"{count:.0f}"
            for count in (summary.images_to_match, summary.boxes_to_match)
        ),
        f"{summary.balance:.3f}",
        "" if own else f"{summary.overlap:.3f}",
        f"{summary.overlap_others:.3f}",
        f"{summary.seconds:.1f}",
        f"{summary.trainings:.0f}",
        ", ".join(f"{name} {count}" for name, count in sorted(summary.chosen_by.items())),
        "" if summary.measured_share is None else f"{summary.measured_share:.2f}",
    ]

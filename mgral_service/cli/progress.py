"""A cycle's progress: on a terminal a bar for each phase with an ETA, elsewhere plain lines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_S = 5.0  # between two plain lines of one phase


class Display:
    """Shows events: `with Display(console) as show: show(kind, data)`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, tuple[float, int, int]] = {}  # phase -> start, done then, done now
        self._printed = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description:<17}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=self._console,
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "progress":
            self._progress(data)
        elif kind == "cycle.state_changed":
            self._tasks, self._started = {}, {}  # a phase that comes again gets a new bar
            if self._bars is not None:
                return
            detail = f": {data['detail']}" if "detail" in data else ""
            self._line(f"{data['status']}{detail}")

    def _progress(self, data: Mapping[str, Any]) -> None:
        phase, done, total = str(data["phase"]), int(data["done"]), int(data["total"])
        values = data.get("figures", {})
        figures = " ".join(f"{name} {value:.4f}" for name, value in values.items())
        if self._bars is not None:
            if phase not in self._tasks:
                self._tasks[phase] = self._bars.add_task(phase, total=total, figures="")
            self._bars.update(self._tasks[phase], completed=done, total=total, figures=figures)
            return
        now = time.monotonic()
        start, first, last = self._started.get(phase, (now, done, done))
        if done < last:  # the phase starts again, as with a detector for each fold
            start, first = now, done
        self._started[phase] = start, first, done
        if 0 < done < total and now - self._printed < LINE_S:
            return
        self._printed = now
        left = (now - start) * (total - done) / max(done - first, 1)
        eta = f", ETA {left:.0f} s" if first < done < total else ""
        self._line(f"{phase} {done}/{total}{eta} {figures}".rstrip())

    def _line(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", highlight=False, soft_wrap=True)


def shown_hours(hours: float) -> str:
    """Seconds, minutes or hours, three figures."""
    if hours < 1 / 60:
        return f"{hours * 3600:.3g} s"
    if hours < 1:
        return f"{hours * 60:.3g} min"
    return f"{hours:.3g} h" if hours < 1000 else f"{float(f'{hours:.3g}'):,.0f} h"

"""A cycle's progress: on a terminal a bar for each phase with an ETA, in a log plain lines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
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
    """Shows events as the service sends them: `with Display(console) as show: show(kind, data)`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._started: dict[str, tuple[float, int, int]] = {}  # when, what was done; done since
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "progress":
            self._progress(data)
        elif kind == "cycle.state_changed":
            self._tasks, self._started = {}, {}  # a phase may come again: it gets a bar of its own
            if self._bars is not None:
                return
            detail = f": {data['detail']}" if "detail" in data else ""
            self._line(f"{data['status']}{detail}")

    def _progress(self, data: Mapping[str, Any]) -> None:
        phase, done, total = str(data["phase"]), int(data["done"]), int(data["total"])
        shown = data.get("figures", {})
        figures = " ".join(f"{name} {value:.4f}" for name, value in shown.items())
        if self._bars is not None:
            if phase not in self._tasks:
                self._tasks[phase] = self._bars.add_task(phase, total=total, figures="")
            self._bars.update(self._tasks[phase], completed=done, total=total, figures=figures)
            return
        now = time.monotonic()
        first, had, last = self._started.get(phase, (now, done, done))
        if done < last:  # the phase begins again, as with a detector for each base
            first, had = now, done
        self._started[phase] = first, had, done
        if 0 < done < total and now - self._printed < LINE_S:
            return
        self._printed = now
        left = (now - first) * (total - done) / max(done - had, 1)
        eta = f", ETA {left:.0f} s" if had < done < total else ""
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


def shown_bytes(count: int) -> str:
    """In thousands of the largest unit that leaves 1 or more."""
    size, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{size:.3g} {unit}"

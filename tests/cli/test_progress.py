import io

import pytest
from rich.console import Console

from mgral_service.cli.progress import Display, shown_hours

PROGRESS = {"phase": "TRAINING_PROXIES", "total": 4, "figures": {"score": 0.25}}


def _shown(terminal: bool) -> str:
    sink = io.StringIO()
    console = Console(file=sink, force_terminal=terminal, width=120, _environ={"TERM": "xterm"})
    with Display(console) as show:
        show("cycle.state_changed", {"status": "TRAINING_PROXIES"})
        for done in (0, 4):
            show("progress", PROGRESS | {"done": done})
        show("cycle.state_changed", {"status": "FAILED", "detail": "disk full"})
    return sink.getvalue()


def test_without_a_terminal_progress_is_plain_lines() -> None:
    lines = _shown(terminal=False).splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == [
        "TRAINING_PROXIES",
        "TRAINING_PROXIES 0/4 score 0.2500",
        "TRAINING_PROXIES 4/4 score 0.2500",
        "FAILED: disk full",
    ]


def test_the_time_left_follows_from_what_was_done_since(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that goes on, or a cycle that is watched from its middle, was not at 0."""
    sink, now = io.StringIO(), iter([10.0, 40.0, 70.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    with Display(Console(file=sink, force_terminal=False, width=120)) as show:
        for done in (150, 151, 152):
            show("progress", PROGRESS | {"done": done, "total": 200})
    first, second, third = sink.getvalue().splitlines()
    assert "ETA" not in first
    assert "151/200, ETA 1470 s" in second
    assert "152/200, ETA 1440 s" in third


def test_a_phase_that_starts_again_is_timed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A detector is fitted for each fold, all as FITTING."""
    sink, now = io.StringIO(), iter([10.0, 100.0, 110.0, 120.0])
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    with Display(Console(file=sink, force_terminal=False, width=120)) as show:
        for done in (0, 200, 40, 80):
            show("progress", PROGRESS | {"done": done, "total": 200})
    assert "80/200, ETA 30 s" in sink.getvalue().splitlines()[-1]


def test_on_a_terminal_progress_is_a_bar() -> None:
    shown = _shown(terminal=True)
    assert "━" in shown
    assert "4/4" in shown


def test_hours_are_shown_in_units_a_person_reads() -> None:
    hours = (12 / 3600, 0.5, 3.25, 30120.0)
    assert [shown_hours(value) for value in hours] == ["12 s", "30 min", "3.25 h", "30,100 h"]

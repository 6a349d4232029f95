"""Results of long tasks, stored as they come, so that an interrupted benchmark goes on."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.lib.harness import kept_lines, limit_threads

Task = TypeVar("Task")
Result = dict[str, Any]


def results(
    file: Path,
    tasks: Mapping[str, Task],
    run: Callable[[Task], Result],
    processes: int | None = None,
) -> dict[str, Result]:
    """Of each task by key: those in `file` at once, the others in `processes` processes (None: one
    a core) of a thread each. `run` is picklable, a result goes into JSON.
    """
    stored = {row["key"]: row["result"] for row in kept_lines(file)}
    missing = {key: task for key, task in tasks.items() if key not in stored}
    if missing:
        file.parent.mkdir(parents=True, exist_ok=True)
        with (
            ProcessPoolExecutor(
                processes or os.cpu_count() or 1,
                multiprocessing.get_context("spawn"),
                limit_threads,
                (1,),
            ) as pool,
            file.open("a", encoding="utf-8") as lines,
        ):
            futures = {pool.submit(run, task): key for key, task in missing.items()}
            for done, future in enumerate(as_completed(futures), start=1):
                key = futures[future]
                stored[key] = future.result()
                lines.write(json.dumps({"key": key, "result": stored[key]}) + "\n")
                lines.flush()
                print(f"\r{done} of {len(missing)} done", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
    return {key: stored[key] for key in tasks}

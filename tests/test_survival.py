"""What is done stays done: the driver and the store are killed while the table is being filled."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mgral_service.datasets.digits import write_digits
from mgral_service.domain.records import LookupRecord
from mgral_service.store.embedded import EmbeddedValkey
from mgral_service.store.redis import redis_stores

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

RECORDS = 8
EXPERIMENT = """
initial = 12
[dataset]
name = "tiny"
root = "data"
test = "test.json"
[cycle]
budget = 6
[cycle.detector]
size = 96
steps = 10
batch = 4
[cycle.table]
records = {records}
steps = {steps}
folds = 2
actors = {actors}
[cycle.agent]
iterations = 4
advanced.draws = 4
"""
STEPS = 12


class Run:
    """`mgral run FILE` as a process of its own, its store at a server that the test holds."""

    def __init__(self, folder: Path, name: str, actors: int) -> None:
        self.file = folder / f"{name}.toml"
        self.file.write_text(EXPERIMENT.format(records=RECORDS, steps=STEPS, actors=actors))
        self.out, self.home = folder / name, folder / f"home-{name}"
        self.valkey = EmbeddedValkey(folder / f"valkey-{name}")

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "mgral_service", "run", str(self.file)]
        hidden = {"RAY_ADDRESS"}
        visible = {key: value for key, value in os.environ.items() if key not in hidden}
        return subprocess.Popen(
            [*command, "--out", str(self.out)],
            env={**visible, "MGRAL_HOME": str(self.home), "MGRAL_REDIS_URL": self.valkey.url},
            start_new_session=True,
        )

    def records(self) -> tuple[LookupRecord, ...]:
        stores = redis_stores(self.valkey.url)
        (record,) = stores.cycles.page(None, 2)
        return stores.table.records(record.id)

    def selection(self) -> Any:
        return json.loads((self.out / "cycle-1" / "selection.json").read_text())["images"]


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """The driver is killed; its Ray ends with it, at the latest here."""
    process.kill()
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def test_kill_9_of_driver_and_store_loses_no_proxy_and_changes_no_selection(
    tmp_path: Path,
) -> None:
    write_digits(tmp_path / "data", 44, test=10, size=96)

    calm = Run(tmp_path, "calm", actors=2)
    with calm.valkey:
        assert calm.start().wait(240) == 0
        assert len(calm.records()) == RECORDS

    shaken = Run(tmp_path, "shaken", actors=1)
    shaken.valkey.start()
    try:
        process = shaken.start()
        before = _wait_for_records(shaken, 2, process)
        _kill_session(process)
        os.kill(shaken.valkey.pid, signal.SIGKILL)
        shaken.valkey.stop()
        shaken.valkey.start()
        survived = shaken.records()
        assert {record.index for record in before} <= {record.index for record in survived}
        assert len(survived) < RECORDS, "the kill came too late to show anything"

        assert shaken.start().wait(240) == 0
        after = shaken.records()
    finally:
        shaken.valkey.stop()
    assert [record.index for record in after] == list(range(RECORDS))
    by_index = {record.index: record for record in after}
    for record in survived:  # with its time: it was not trained again
        assert by_index[record.index] == record
    assert shaken.selection() == calm.selection()  # one actor or two, shaken or calm


def _wait_for_records(
    run: Run, count: int, process: subprocess.Popen[bytes]
) -> tuple[LookupRecord, ...]:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, "the driver ended before it could be killed"
        if redis_stores(run.valkey.url).cycles.page(None, 1):
            records = run.records()
            if len(records) >= count:
                return records
        time.sleep(0.1)
    raise AssertionError(f"no {count} records in time")

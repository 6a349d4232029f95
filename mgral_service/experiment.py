"""A whole experiment in one process tree: `mgral run FILE.toml`, and the same under `ray job
submit`.

Everything it needs again after a restart has a name made from the experiment's content, so the same
file run again goes on where it stopped, and one that is done answers at once. A cycle that failed
or was cancelled before its images were annotated is tried anew, with the proxies it has trained.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mgral_service import codec, wiring
from mgral_service.domain.errors import MgralError, Unreadable
from mgral_service.domain.evidence import CycleReport
from mgral_service.domain.ports import Oracle
from mgral_service.domain.records import (
    EXPERIMENT,
    CycleRecord,
    DatasetRecord,
    Selection,
    Status,
)
from mgral_service.domain.specs import ExperimentSpec
from mgral_service.driver import DriverPorts, Tell, acquire, drive, this_process
from mgral_service.settings import Settings

ANNOTATED = (
    "Its images are annotated already, so it cannot be tried again: change the file, its seed for "
    "one, to start a new experiment"
)


def run_experiment(
    spec: ExperimentSpec, settings: Settings, tell: Tell, out: Path
) -> list[tuple[Selection, CycleReport]]:
    """All cycles of an experiment; files of cycle n in `out/cycle-n`. Raises what ends a cycle."""
    from mgral_service import datasets
    from mgral_service.datasets.oracle import RevealingOracle, write_held_back

    wiring.check(spec.cycle)
    digest = hashlib.sha256(codec.encode(spec).encode()).hexdigest()
    with wiring.with_store(settings) as settings:
        ports = wiring.driver_ports(settings)
        folder = (settings.home / "experiments" / digest[:12]).resolve()
        held = write_held_back(spec.dataset, folder, spec.initial, spec.cycle.seed)
        held = replace(held, name=f"{spec.dataset.name[:50]}-{digest[:12]}")
        dataset = ports.stores.datasets.add(wiring.ingest(settings, held))
        truth = datasets.annotations_of(wiring.ingest(settings, spec.dataset))
        oracle = RevealingOracle(truth)
        answers = []
        for number in range(1, spec.cycles + 1):
            name = _begun(f"{digest}/{number}", spec, dataset, ports, tell)
            answer = _one_cycle(name, dataset, ports, oracle, tell)
            _write(out / f"cycle-{number}", *answer, dataset)
            answers.append(answer)
    return answers


def _begun(
    which: str, spec: ExperimentSpec, dataset: DatasetRecord, ports: DriverPorts, tell: Tell
) -> str:
    """The id of the last try of a cycle; of a new one if that failed or was cancelled.

    MgralError if it failed with its images annotated: these are labelled now, so another try would
    be another cycle.
    """
    cycle_spec = replace(spec.cycle, dataset=dataset.spec.name)
    before: CycleRecord | None = None
    while True:
        told = which if before is None else f"{which}/{before.id}"
        name = "cyc_" + hashlib.sha256(told.encode()).hexdigest()[:20]
        now = time.time()
        mine = CycleRecord(name, cycle_spec, Status.QUEUED, 0, now, now, EXPERIMENT)
        record = ports.stores.cycles.create(mine, f"experiment/{name}", codec.encode(cycle_spec))
        if record.status not in {Status.FAILED, Status.CANCELLED}:
            if before is not None and record.status is Status.QUEUED:
                _hand_over(before, name, ports)
                words = f"a new try of {before.id}, which is {before.status}"
                tell("cycle.state_changed", {"status": "QUEUED", "detail": words})
            return name
        if _annotated(record, ports):
            raise MgralError(f"{_cause(record)}. {ANNOTATED}")
        before = record


def _hand_over(before: CycleRecord, name: str, ports: DriverPorts) -> None:
    """To the next try what was seen, and the records of proxies that were designed by it; unless
    that was what it failed of.
    """
    stores, artifacts = ports.stores, ports.artifacts
    text = stores.cycles.document(before.id, "report")
    spoilt = before.problem is not None and before.problem.code in {"Unreadable", "InvalidInput"}
    if spoilt or text is None or artifacts.get(before.id, "observation") is None:
        return
    try:
        report = codec.stored(CycleReport, text, "report of cycle", before.id)
    except Unreadable:
        return
    report = replace(report, cycle=name, failed_proxies=(), evidence=None, words=())
    lease = acquire(name, ports, this_process())
    try:
        for what in ("observation", "detector"):
            kept = artifacts.get(before.id, what)
            if kept is not None:
                artifacts.put(name, what, *kept)
        stores.cycles.put_document(name, "report", codec.encode(report), lease)
        for record in stores.table.records(before.id):
            stores.table.put(replace(record, cycle=name), lease)
    finally:
        stores.cycles.release(name, lease)


def _cause(record: CycleRecord) -> str:
    problem = record.problem
    words = f": {problem.code}: {problem.detail}" if problem else ""
    return f"{record.id} is {record.status}{words}"


def _one_cycle(
    name: str,
    dataset: DatasetRecord,
    ports: DriverPorts,
    oracle: Oracle,
    tell: Tell,
) -> tuple[Selection, CycleReport]:
    """One cycle from wherever it stands to its report."""
    cycles = ports.stores.cycles
    record = _driven(name, ports, tell)
    selection = read_selection(ports, name)
    if record.status is Status.SELECTED:
        answers = oracle.annotate([one.image_id for one in selection.images])
        ports.stores.datasets.add_labels(dataset.spec.name, name, answers)
        cycles.put(replace(record, status=Status.ANNOTATED, updated=time.time()), None)
        _driven(name, ports, tell)
    text = cycles.document(name, "report")
    assert text is not None
    return selection, codec.stored(CycleReport, text, "report of cycle", name)


def _driven(name: str, ports: DriverPorts, tell: Tell) -> CycleRecord:
    record = drive(name, ports, this_process(), tell)
    if record.status in {Status.FAILED, Status.CANCELLED}:
        annotated = _annotated(record, ports)
        advice = ANNOTATED if annotated else "Run the file again to try it anew"
        raise MgralError(f"{_cause(record)}. {advice}")
    return record


def _annotated(record: CycleRecord, ports: DriverPorts) -> bool:
    return record.id in dict(ports.stores.datasets.labels(record.spec.dataset))


def read_selection(ports: DriverPorts, name: str) -> Selection:
    text = ports.stores.cycles.document(name, "selection")
    assert text is not None
    return codec.stored(Selection, text, "selection of cycle", name)


def _write(out: Path, selection: Selection, report: CycleReport, dataset: DatasetRecord) -> None:
    from mgral_service.report.files import write

    documents: Mapping[str, Any] = {
        "selection.json": codec.plain(selection),
        "report.json": codec.plain(report),
    }
    root = Path(dataset.spec.root)
    files = {image.id: root / image.file for image in dataset.images}
    write(out, selection, report, documents, files)

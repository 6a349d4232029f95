"""A whole experiment in one process tree: `mgral run FILE.toml`, and the same under `ray job
submit`.

Everything it needs again after a restart has a name made from the experiment's content, so the same
file run again goes on where it stopped, and one that is done answers at once.
"""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from mgral_service import codec, wiring
from mgral_service.domain.errors import MgralError
from mgral_service.domain.evidence import CycleReport
from mgral_service.domain.ports import Oracle
from mgral_service.domain.records import CycleRecord, DatasetRecord, Selection, Status
from mgral_service.domain.specs import ExperimentSpec
from mgral_service.driver import DriverPorts, Tell, drive
from mgral_service.settings import Settings


def run_experiment(
    spec: ExperimentSpec, settings: Settings, tell: Tell, out: Path
) -> list[tuple[Selection, CycleReport]]:
    """All cycles of an experiment; files of cycle n in `out/cycle-n`. Raises what ends a cycle."""
    from mgral_service import datasets
    from mgral_service.datasets.oracle import RevealingOracle, write_held_back

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
            name = "cyc_" + hashlib.sha256(f"{digest}/{number}".encode()).hexdigest()[:20]
            answer = _one_cycle(name, spec, dataset, ports, oracle, tell)
            _write(out / f"cycle-{number}", *answer, dataset)
            answers.append(answer)
    return answers


def _one_cycle(
    name: str,
    spec: ExperimentSpec,
    dataset: DatasetRecord,
    ports: DriverPorts,
    oracle: Oracle,
    tell: Tell,
) -> tuple[Selection, CycleReport]:
    """One cycle from wherever it stands to its report."""
    cycles = ports.stores.cycles
    now = time.time()
    cycle_spec = replace(spec.cycle, dataset=dataset.spec.name)
    blank = CycleRecord(name, cycle_spec, Status.QUEUED, 0, now, now)
    cycles.create(blank, f"experiment/{name}", codec.encode(cycle_spec))
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
    owner = f"{socket.gethostname()}/{os.getpid()}"
    record = drive(name, ports, owner, tell)
    if record.problem is not None:
        raise MgralError(f"{record.problem.code}: {record.problem.detail}")
    return record


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

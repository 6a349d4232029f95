"""A whole experiment in one process tree: `mgral run FILE.toml`, and the same under `ray job
submit`.

Names follow from the experiment's content, so the same file run again goes on where it stopped, and
one that is done answers at once. A cycle that failed or was cancelled before its images were
annotated is tried again, with the proxies that it has trained.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

from mgral_service import codec
from mgral_service.app import wiring
from mgral_service.app.driver import DriverPorts, Watch, acquire, drive, this_process
from mgral_service.app.settings import Settings
from mgral_service.domain.errors import MgralError, Unreadable
from mgral_service.domain.ports import Oracle
from mgral_service.domain.records import CycleRecord, Selection, Status
from mgral_service.domain.report import CycleReport
from mgral_service.domain.specs import CycleSpec, ExperimentSpec


def run_experiment(
    spec: ExperimentSpec, settings: Settings, watch: Watch, out: Path
) -> list[tuple[Selection, CycleReport]]:
    """All cycles of an experiment; files of cycle n in `out/cycle-n`. Raises what ends a cycle.

    Each image is decoded once where the decoded images fit in memory.
    """
    from mgral_service.datasets.loading import Squeezed
    from mgral_service.datasets.oracle import RevealingOracle, hold_back
    from mgral_service.report.files import write

    wiring.check(spec.cycle)
    digest = hashlib.sha256(codec.encode(spec).encode()).hexdigest()
    with wiring.with_store(settings) as settings:
        folder = (settings.home / "experiments" / digest[:12]).resolve()
        size = spec.cycle.detector.size
        squeezed = Squeezed(size)
        whole = wiring.ingest(
            settings,
            spec.dataset,
            report=lambda progress: watch("progress", codec.plain(progress)),
            sink=squeezed.add,
        )
        held = hold_back(whole, folder, spec.initial, spec.cycle.seed)
        name = f"{spec.dataset.name[:50]}-{digest[:12]}"
        record = replace(held.record, spec=replace(held.record.spec, name=name))
        images = squeezed.store(held.images.images)
        ports = wiring.driver_ports(settings, {} if images is None else {(name, size): images})
        ports.stores.datasets.add(record, held.images)
        oracle = RevealingOracle(whole.annotations)
        root = Path(record.spec.root)
        files = {image.id: root / image.file for image in held.images.images}
        answers = []
        for number in range(1, spec.cycles + 1):
            cycle_spec = replace(spec.cycle, dataset=name)
            cycle = _current_try(f"{digest}/{number}", cycle_spec, ports, watch)
            selection, report = _run_cycle(cycle, ports, oracle, watch)
            documents = {
                "selection.json": codec.plain(selection),
                "report.json": codec.plain(report),
            }
            write(out / f"cycle-{number}", selection, report, documents, files, record.classes)
            answers.append((selection, report))
    return answers


def _current_try(name: str, spec: CycleSpec, ports: DriverPorts, watch: Watch) -> str:
    """The id of the last try of the cycle `name`; of a new one if that failed or was cancelled.

    MgralError if it failed with its images annotated: they are labelled now, so another try would
    be another cycle.
    """
    previous: CycleRecord | None = None
    while True:
        text = name if previous is None else f"{name}/{previous.id}"
        cycle = "cyc_" + hashlib.sha256(text.encode()).hexdigest()[:20]
        now = time.time()
        new = CycleRecord(cycle, spec, Status.QUEUED, 0, now, now, experiment=True)
        record = ports.stores.cycles.create(new, f"experiment/{cycle}", codec.encode(spec))
        if record.status not in {Status.FAILED, Status.CANCELLED}:
            if previous is not None and record.status is Status.QUEUED:
                _hand_over(previous, cycle, ports)
                detail = f"a new try of {previous.id}, which is {previous.status}"
                watch("cycle.state_changed", {"status": "QUEUED", "detail": detail})
            return cycle
        if _annotated(record, ports):
            raise _failure(record, ports)
        previous = record


def _hand_over(previous: CycleRecord, cycle: str, ports: DriverPorts) -> None:
    """Give the predictions and the records of a try to the next; not those that it failed of."""
    stores, artifacts = ports.stores, ports.artifacts
    text = stores.cycles.attachment(previous.id, "report")
    failed_of_them = previous.problem and previous.problem.code in {"Unreadable", "InvalidInput"}
    if failed_of_them or text is None or artifacts.get(previous.id, "predictions-pool") is None:
        return
    try:
        report = codec.stored(CycleReport, text, "report of cycle", previous.id)
    except Unreadable:
        return
    report = replace(report, cycle=cycle, failed_proxies=(), table=None, notes=())
    lease = acquire(cycle, ports, this_process())
    try:
        folds = [f"fold-{number}" for number in range(previous.spec.table.folds)]
        for kind, part in product(("predictions", "weights"), ("pool", "detector", *folds)):
            artifact = artifacts.get(previous.id, f"{kind}-{part}")
            if artifact is not None:
                artifacts.put(cycle, f"{kind}-{part}", *artifact)
        stores.cycles.put_attachment(cycle, "report", codec.encode(report), lease)
        for record in stores.table.records(previous.id):
            stores.table.put(replace(record, cycle=cycle), lease)
    finally:
        stores.cycles.release(cycle, lease)


def _run_cycle(
    cycle: str, ports: DriverPorts, oracle: Oracle, watch: Watch
) -> tuple[Selection, CycleReport]:
    """From wherever the cycle stands to its report."""
    cycles = ports.stores.cycles
    record = _drive(cycle, ports, watch)
    text = cycles.attachment(cycle, "selection")
    assert text is not None
    selection = codec.stored(Selection, text, "selection of cycle", cycle)
    if record.status is Status.SELECTED:
        answers = oracle.annotate([image.image_id for image in selection.images])
        ports.stores.datasets.add_labels(record.spec.dataset, cycle, answers)
        cycles.put(replace(record, status=Status.ANNOTATED, updated=time.time()), None)
        _drive(cycle, ports, watch)
    text = cycles.attachment(cycle, "report")
    assert text is not None
    return selection, codec.stored(CycleReport, text, "report of cycle", cycle)


def _drive(cycle: str, ports: DriverPorts, watch: Watch) -> CycleRecord:
    record = drive(cycle, ports, this_process(), watch)
    if record.status in {Status.FAILED, Status.CANCELLED}:
        raise _failure(record, ports)
    return record


def _annotated(record: CycleRecord, ports: DriverPorts) -> bool:
    return record.id in dict(ports.stores.datasets.labels(record.spec.dataset))


def _failure(record: CycleRecord, ports: DriverPorts) -> MgralError:
    """Why the cycle ended, and what to do."""
    problem = record.problem
    detail = f": {problem.code}: {problem.detail}" if problem else ""
    advice = "Run the file again to try it again"
    if _annotated(record, ports):
        advice = (
            "Its images are annotated already, so it cannot be tried again: change the file, for "
            "example its seed, to start a new experiment"
        )
    return MgralError(f"{record.id} is {record.status}{detail}. {advice}")

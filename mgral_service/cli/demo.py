"""`mgral demo`: a client of the HTTP API registers data, starts a cycle, annotates the chosen
images and compares them with random ones.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from mgral_service import codec
from mgral_service.app import service, wiring
from mgral_service.app.settings import from_environment
from mgral_service.cli.client import ENDED, Client
from mgral_service.cli.progress import Display
from mgral_service.domain.errors import MgralError
from mgral_service.domain.records import Selection
from mgral_service.domain.report import CycleReport
from mgral_service.domain.specs import CycleSpec, DatasetSpec

if TYPE_CHECKING:
    from mgral_service.datasets import Ingested

SCENES, TEST, SIDE = 2000, 400, 128  # generated: frames of a camera, test frames, pixels
SHOWN = 10


@dataclass(frozen=True)
class Regime:
    """initial: labelled images at the start; budget: images to choose; steps, batch: of the
    detector, whose features are kept.
    """

    initial: int
    budget: int
    size: int
    steps: int
    batch: int

    def cycle_spec(self, dataset: str, seed: int) -> dict[str, Any]:
        return {
            "dataset": dataset,
            "budget": self.budget,
            "seed": seed,
            "detector": {
                "size": self.size,
                "steps": self.steps,
                "batch": self.batch,
                "advanced": {"augmentations": 4},
            },
            "table": {"records": 48, "folds": 4},
            "agent": {"iterations": 150},
        }


GENERATED = Regime(initial=300, budget=100, size=SIDE, steps=500, batch=16)
OWN = Regime(initial=80, budget=40, size=160, steps=200, batch=8)


@dataclass
class Timeline:
    """(phase, seconds, result) of what happened so far."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[str], None]]:
        """Takes a text on what the phase made."""
        start = time.monotonic()
        results: list[str] = []
        yield results.append
        self.rows.append((name, time.monotonic() - start, " ".join(results)))


@dataclass(frozen=True)
class Outcome:
    """What a round gave. documents: as the service sent them; files: image_id -> image."""

    selection: Selection
    report: CycleReport
    documents: dict[str, Any]
    files: dict[str, Path]


def run_demo(folder: Path | None, out: Path, seed: int, stdout: Console, stderr: Console) -> None:
    """A whole round; the service is stopped and its processes are gone when this returns."""
    from mgral_service import datasets
    from mgral_service.datasets.oracle import hold_back
    from mgral_service.report import files

    timeline, out = Timeline(), out.resolve()
    regime = OWN if folder else GENERATED
    shutil.rmtree(out / "home", ignore_errors=True)  # a demo starts from nothing
    out.mkdir(parents=True, exist_ok=True)
    with service.exit_on_sigterm(), Display(stderr) as show:
        with timeline.phase("data") as made:
            folder = folder.resolve() if folder else _digits(out / "digits", show)
            whole = datasets.ingest(DatasetSpec(_name_of(folder), str(folder), test="test.json"))
            held = hold_back(whole, out / "dataset", regime.initial, seed)
            made(f"{folder.name}: the service gets the labels of {regime.initial} images")
        settings = from_environment().model_copy(
            update={"home": out / "home", "port": service.free_port(), "redis_url": None}
        )
        with timeline.phase("start") as made:
            url, process = service.up_detached(settings, out / "service.log")
            made(f"Valkey, Ray and Serve at {url}")
        try:
            with Client(url, settings.bearer) as client:
                cycle_spec = regime.cycle_spec(held.record.spec.name, seed)
                outcome = _round(client, held.record.spec, cycle_spec, folder, timeline, show)
        finally:
            with timeline.phase("stop") as made:
                service.down(settings)
                process.wait()
                made("no process of the service is left")
        with timeline.phase("random images") as made:
            random_score = random_arm(outcome.report.spec, whole, held, wiring.device_of(settings))
            made("the same detector, from as many images drawn uniformly")
    report, selection = outcome.report, outcome.selection
    scores = {"before": report.test_before, "chosen": report.test_after, "random": random_score}
    comparison = {name: score for name, score in scores.items() if score is not None}
    pool, chosen = held.images.unlabelled, [image.image_id for image in selection.images]
    counts = {"pool": _boxes(whole, pool), "chosen images": _boxes(whole, chosen)}
    paths = files.write(
        out,
        selection,
        report,
        outcome.documents,
        outcome.files,
        held.record.classes,
        comparison,
        counts,
    )
    _print(stdout, timeline, outcome, paths, comparison)


def random_arm(spec: CycleSpec, whole: Ingested, held: Ingested, device: str) -> float:
    """mAP on the test images of the cycle's detector, retrained with a uniform batch of the pool in
    place of the chosen one.

    whole: the dataset with all labels; held: what the service was given of it
    """
    from mgral_service.datasets.loading import load_images
    from mgral_service.domain.seeds import Purpose, stream

    pool = held.images.unlabelled
    drawn = stream(spec.seed, Purpose.CLASSICAL).choice(len(pool), spec.budget, replace=False)
    training = {*held.images.labelled, *(pool[position] for position in drawn)}
    test = held.images.test
    images = load_images(
        held.record.spec.root,
        [image for image in held.images.images if image.id in {*training, *test}],
        spec.detector.size,
    )
    detector = wiring.task_detector(spec, held.record.classes, images, device)
    detector.fit(whole.annotations.subset(sorted(training)), lambda progress: None)
    return detector.score(whole.annotations.subset(test))


def _boxes(whole: Ingested, ids: Sequence[str]) -> dict[str, int]:
    """Boxes of each class in these images."""
    classes = whole.record.classes
    counts = np.bincount(whole.annotations.subset(ids).labels, minlength=len(classes))
    return dict(zip(classes, counts.tolist(), strict=True))


def _digits(folder: Path, show: Display) -> Path:
    from mgral_service.datasets.digits import write_digits

    if (folder / "test.json").exists():
        return folder  # the same scenes every time
    return write_digits(
        folder,
        SCENES,
        TEST,
        SIDE,
        report=lambda progress: show("progress", codec.plain(progress)),
        camera=True,
    )


def _name_of(folder: Path) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.name) or "data"


def _round(
    client: Client,
    spec: DatasetSpec,
    cycle_spec: dict[str, Any],
    folder: Path,
    timeline: Timeline,
    show: Display,
) -> Outcome:
    from mgral_service.datasets.answers import answer_from

    with timeline.phase("POST /datasets") as made:
        report = client.add_dataset(codec.plain(spec))["report"]
        made(
            f"{report['accepted_images']} images and {report['accepted_boxes']} boxes accepted, "
            f"{report['repaired_boxes']} boxes repaired, {report['refused_images']} images refused"
        )
    with timeline.phase("POST /cycles") as made:
        cycle = client.start(cycle_spec, key=f"demo-{cycle_spec['seed']}")["id"]
        made(cycle)
    with timeline.phase("choose") as made:
        _follow(client, cycle, show, "SELECTED")
        selection = _selection(client.selection(cycle))
        made(f"{len(selection.images)} images, chosen by {selection.strategy}")
    fewer_images = cycle_spec["budget"] // 2
    with timeline.phase(f"GET ?budget={fewer_images}") as made:
        fewer = _selection(client.selection(cycle, fewer_images))
        made(f"{len(fewer.images)} images, ranked again by the Serve replica")
    with timeline.phase("annotate") as made:
        asked = client.call("GET", f"/selections/{cycle}", params={"format": "coco"})
        answer = answer_from(asked, json.loads((folder / "train.json").read_text()))
        answers = client.call("POST", f"/cycles/{cycle}/annotations", json=answer)
        made(f"{len(answers['matched'])} images matched, {answers['boxes']} boxes")
    with timeline.phase("retrain") as made:
        _follow(client, cycle, show, "SUCCEEDED")
        document = client.report(cycle)
        made("a detector from all labels, scored on the test images")
    for phase in document["phases"]:
        timeline.rows.append((f"  {phase['phase']}", phase["duration_s"], phase["made"]))
    return Outcome(
        selection=selection,
        report=codec.build(CycleReport, document),
        documents={"selection.json": codec.plain(selection), "report.json": document},
        files={
            image["image_id"]: folder / "images" / image["file_name"] for image in asked["images"]
        },
    )


def _follow(client: Client, cycle: str, show: Display, goal: str) -> None:
    for kind, data in client.events(cycle, ENDED | {goal}):
        show(kind, data)
    record = client.cycle(cycle)
    if record["status"] != goal:
        detail = (record.get("problem") or {}).get("detail", "")
        raise MgralError(f"cycle {cycle} is {record['status']}, not {goal}: {detail}")


def _selection(page: dict[str, Any]) -> Selection:
    """The fields of a page that make a Selection; a client accepts more."""
    images = [
        {name: image[name] for name in ("image_id", "rank", "score", "reason", "boxes")}
        for image in page["images"]
    ]
    head = {name: page[name] for name in ("cycle", "dataset", "requested", "strategy")}
    return codec.build(Selection, head | {"images": images})


def _print(
    out: Console,
    timeline: Timeline,
    outcome: Outcome,
    paths: tuple[Path, ...],
    comparison: Mapping[str, float],
) -> None:
    from mgral_service.report.html import NAMES

    report, selection = outcome.report, outcome.selection
    phases = Table("phase", "seconds", "result", title="One active learning round")
    for name, seconds, result in timeline.rows:
        phases.add_row(name, f"{seconds:.1f}", result)
    out.print(phases)
    chosen = Table("rank", "image", "score", "why", title=f"Chosen by {selection.strategy}")
    for image in selection.images[:SHOWN]:
        chosen.add_row(str(image.rank), image.image_id, f"{image.score:.4g}", image.reason)
    out.print(chosen)
    for note in report.notes:
        out.print(f"  {note.text}", highlight=False, markup=False)
    for path in paths:
        out.print(str(path), highlight=False)
    for name, score in comparison.items():
        label = NAMES.get(name, name)
        out.print(f"test mAP ({report.spec.metric}) {label:<22} {score:.4f}", highlight=False)

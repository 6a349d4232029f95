"""`mgral demo`: a client that plays the user. It starts the service, sends data, starts a cycle,
annotates what was chosen and shows what the new labels gave. All talk goes through the HTTP API.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mgral_service import codec, service
from mgral_service.client import Client
from mgral_service.console import Display
from mgral_service.datasets.answers import answer_from
from mgral_service.domain.errors import MgralError
from mgral_service.domain.evidence import CycleReport
from mgral_service.domain.records import Selection
from mgral_service.domain.specs import DatasetSpec
from mgral_service.report.files import write
from mgral_service.settings import from_environment

SCENES = 600  # of the digits dataset
INITIAL, BUDGET = 80, 40  # labelled images at the start, images to choose
ITERATIONS = 200
TABLE = {
    "records": 24,
    "objective": "csd",
    "start": "detector",  # gently, on kept features: ten times the proxies an hour
    "rate": 0.3,
    "steps": 60,
    "views": 4,
    "twice": 0.25,  # of so few records a tenth would tell nothing about seeds
    "online": 2,  # what the ridge would choose from either reservoir
}
SHOWN = 10


@dataclass
class Story:
    """What happened so far, for the closing table."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    @contextmanager
    def phase(self, name: str) -> Iterator[Callable[[str], None]]:
        start = time.monotonic()
        made: list[str] = []
        yield made.append
        self.rows.append((name, time.monotonic() - start, " ".join(made)))


def run_demo(folder: Path | None, out: Path, seed: int, stdout: Console, stderr: Console) -> None:
    """The whole round; the service is stopped and its processes are gone when this returns."""
    from mgral_service.datasets.oracle import write_held_back

    story, out = Story(), out.resolve()
    shutil.rmtree(out / "home", ignore_errors=True)  # a demo starts from nothing
    out.mkdir(parents=True, exist_ok=True)
    with service.leaving_on_sigterm(), Display(stderr) as show:
        with story.phase("data") as made:
            folder = folder.resolve() if folder else _digits(out / "digits", show)
            whole = DatasetSpec(_name_of(folder), str(folder), test="test.json")
            spec = write_held_back(whole, out / "dataset", INITIAL, seed)
            made(f"{folder.name}: {INITIAL} images with labels, the service never sees the others'")
        known = from_environment().model_copy(
            update={"home": out / "home", "port": service.free_port(), "redis_url": None}
        )
        with story.phase("start") as made:
            url, process = service.up_detached(known, out / "service.log")
            made(f"Valkey, Ray and Serve at {url}")
        try:
            with Client(url, known.token.get_secret_value() if known.token else None) as client:
                outcome = _round(client, spec, folder, seed, story, show)
        finally:
            with story.phase("stop") as made:
                service.down(known)
                process.wait()
                made("nothing left running")
    paths = write(out, outcome.selection, outcome.report, outcome.documents, outcome.files)
    _print(stdout, story, outcome, paths)


@dataclass(frozen=True)
class Outcome:
    """What a round gave; `files` image_id -> image, `documents` as the service sent them."""

    selection: Selection
    report: CycleReport
    documents: dict[str, Any]
    files: dict[str, Path]


def _digits(folder: Path, show: Display) -> Path:
    from mgral_service.datasets.digits import write_digits

    if (folder / "test.json").exists():
        return folder  # the same scenes every time
    return write_digits(
        folder, SCENES, report=lambda progress: show("progress", codec.plain(progress))
    )


def _name_of(folder: Path) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in folder.name) or "data"


def _round(
    client: Client, spec: DatasetSpec, folder: Path, seed: int, story: Story, show: Display
) -> Outcome:
    with story.phase("POST /datasets") as made:
        found = client.add_dataset(codec.plain(spec))["report"]
        made(
            f"{found['accepted_images']} images and {found['accepted_boxes']} boxes accepted, "
            f"{found['repaired_boxes']} boxes repaired, {found['refused_images']} images refused"
        )
    with story.phase("POST /cycles") as made:
        cycle = client.start(_cycle_spec(spec.name, seed), key=f"demo-{seed}")["id"]
        made(cycle)
    with story.phase("choose") as made:
        _follow(client, cycle, show, "SELECTED")
        selection = _selection(client.selection(cycle))
        made(f"{len(selection.images)} images, chosen by {selection.strategy}")
    with story.phase(f"GET ?budget={BUDGET // 2}") as made:
        fewer = _selection(client.selection(cycle, BUDGET // 2))
        made(f"{len(fewer.images)} images, ranked again by the Serve replica")
    with story.phase("annotate") as made:
        asked = client.call("GET", f"/selections/{cycle}", params={"format": "coco"})
        answer = answer_from(asked, json.loads((folder / "train.json").read_text()))
        told = client.call("POST", f"/cycles/{cycle}/annotations", json=answer)
        made(f"{len(told['matched'])} images matched, {told['boxes']} boxes")
    with story.phase("retrain") as made:
        _follow(client, cycle, show, "SUCCEEDED")
        document = client.call("GET", f"/cycles/{cycle}/report")
        made("a detector from old and new labels, scored on test")
    for phase in document["phases"]:
        story.rows.append((f"  {phase['phase']}", phase["seconds"], phase["made"]))
    files = {one["image_id"]: folder / "images" / one["file_name"] for one in asked["images"]}
    documents = {"selection.json": codec.plain(selection), "report.json": document}
    return Outcome(selection, codec.build(CycleReport, document), documents, files)


def _cycle_spec(dataset: str, seed: int) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "budget": BUDGET,
        "seed": seed,
        "table": TABLE,
        "agent": {"iterations": ITERATIONS},
    }


def _follow(client: Client, cycle: str, show: Display, goal: str) -> None:
    for kind, data in client.events(cycle, frozenset({goal, "FAILED", "CANCELLED"})):
        show(kind, data)
    record = client.cycle(cycle)
    if record["status"] != goal:
        detail = (record.get("problem") or {}).get("detail", "")
        raise MgralError(f"cycle {cycle} is {record['status']}, not {goal}: {detail}")


def _selection(page: dict[str, Any]) -> Selection:
    """The fields of a page that make a Selection; a client tolerates more."""
    images = [
        {name: one[name] for name in ("image_id", "rank", "score", "reason", "boxes")}
        for one in page["images"]
    ]
    head = {name: page[name] for name in ("cycle", "dataset", "requested", "strategy")}
    return codec.build(Selection, head | {"images": images})


def _print(out: Console, story: Story, outcome: Outcome, paths: tuple[Path, ...]) -> None:
    report, selection = outcome.report, outcome.selection
    phases = Table("phase", "seconds", "what was made", title="One active learning round")
    for name, seconds, made in story.rows:
        phases.add_row(name, f"{seconds:.1f}", made)
    out.print(phases)
    chosen = Table("rank", "image", "score", "why", title=f"Chosen by {selection.strategy}")
    for one in selection.images[:SHOWN]:
        chosen.add_row(str(one.rank), one.image_id, f"{one.score:.4g}", one.reason)
    out.print(chosen)
    for sentence in report.words:
        out.print(f"  {sentence}", highlight=False)
    scores = Table(f"mAP ({report.spec.metric})", "before", "after the new labels")
    for name, before, after in (
        ("scoring images", report.scoring_before, report.scoring_after),
        ("test images", report.test_before, report.test_after),
    ):
        if before is not None and after is not None:
            scores.add_row(name, f"{before:.4f}", f"{after:.4f}")
    out.print(scores)
    for path in paths:
        out.print(str(path), highlight=False)

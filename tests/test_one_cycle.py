"""HTTP in, selection and retrained detector out: the whole service on this machine."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mgral_service import codec
from mgral_service.app import service
from mgral_service.app.settings import Settings
from mgral_service.cli.client import Client
from mgral_service.datasets.answers import answer_from
from mgral_service.datasets.digits import write_digits
from mgral_service.datasets.oracle import write_held_back
from mgral_service.domain.errors import Conflict, InvalidInput, NotFound
from mgral_service.domain.specs import DatasetSpec
from tests.commands import mgral

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

BUDGET, RECORDS = 6, 8
SPEC = {
    "dataset": "tiny",
    "budget": BUDGET,
    "detector": {"size": 96, "steps": 12, "batch": 4},
    "table": {"records": RECORDS, "folds": 2, "steps": 3},
    "agent": {"iterations": 4, "advanced": {"draws": 4}},
}
RESTING = frozenset({"SELECTED", "SUCCEEDED", "FAILED", "CANCELLED"})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_digits(tmp_path_factory.mktemp("tiny") / "data", 44, test=10, size=96)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[Client]:
    settings = Settings(home=home, port=service.free_port(), redis_url=None, token=None)
    url, process = service.up_detached(settings, home / "up.log")
    assert service.running(home) == process.pid
    with Client(url) as opened:
        yield opened
    assert service.down(settings)
    assert service.running(home) is None
    assert process.wait(60) == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)  # up started a session of its own: nothing of it is left


@pytest.fixture(scope="module")
def dataset(client: Client, folder: Path) -> Any:
    whole = DatasetSpec("tiny", str(folder), test="test.json")
    spec = write_held_back(whole, folder / "held", 12, 0)
    return client.add_dataset(codec.plain(spec))


@pytest.fixture(scope="module")
def cycle(client: Client, dataset: Any) -> str:
    """A cycle that has reached its selection."""
    started = client.start(SPEC, key="one-cycle")
    rest = [data for _, data in client.events(started["id"], RESTING)][-1]
    assert rest["status"] == "SELECTED", client.cycle(started["id"])
    return str(started["id"])


def test_the_dataset_report_counts_what_was_read(dataset: Any) -> None:
    assert dataset["report"]["accepted_images"] == 54
    assert dataset["report"]["refused_images"] == 0


def test_the_selection_names_budget_images_each_with_a_reason(client: Client, cycle: str) -> None:
    selection = client.selection(cycle)
    assert len({image["image_id"] for image in selection["images"]}) == BUDGET
    assert [image["rank"] for image in selection["images"]] == list(range(1, BUDGET + 1))
    assert all(image["reason"] for image in selection["images"])


def test_watching_a_cycle_ends_with_its_notes(client: Client, cycle: str) -> None:
    notes = client.report(cycle)["notes"]
    watched = mgral("cycle", "watch", cycle, MGRAL_URL=client.url, COLUMNS="2000")
    assert watched.returncode == 0, watched.stderr
    assert notes
    assert all(note["text"] in watched.stderr for note in notes)


def test_progress_counts_every_record(client: Client, cycle: str) -> None:
    events = list(client.events(cycle, frozenset({"SELECTED"})))
    counted = [data for kind, data in events if data.get("phase") == "TRAINING_PROXIES"]
    assert counted[-1]["done"] == counted[-1]["total"] == RECORDS


def test_another_budget_is_ranked_by_the_replica(client: Client, cycle: str) -> None:
    stored, fewer, more = (
        {image["image_id"] for image in client.selection(cycle, budget)["images"]}
        for budget in (None, 3, 9)
    )
    assert (len(fewer), len(more)) == (3, 9)
    assert len(stored & more) >= 3


def test_the_cycle_s_agent_chooses_from_files_elsewhere(
    client: Client, cycle: str, home: Path, folder: Path, tmp_path: Path
) -> None:
    files = sorted((folder / "images").glob("*.jpg"))[:9]
    listed, out = tmp_path / "images.txt", tmp_path / "chosen.csv"
    listed.write_text("".join(f"{file.as_uri()}\n" for file in files))
    command = [sys.executable, "-m", "mgral_service", "scan", cycle, str(listed), "--budget", "4"]
    variables = {"MGRAL_URL": client.url, "MGRAL_HOME": str(home), "RAY_ADDRESS": "auto"}
    subprocess.run(
        [*command, "--out", str(out), "--predictions", str(tmp_path / "pool")],
        env=os.environ | variables,
        check=True,
        timeout=200,
    )
    _, *rows = out.read_text().splitlines()
    assert len(rows) == 4
    assert {row.split(",")[1] for row in rows} <= {file.as_uri() for file in files}


def test_the_same_key_is_the_same_cycle(client: Client, cycle: str) -> None:
    assert client.start(SPEC, key="one-cycle")["id"] == cycle
    with pytest.raises(InvalidInput):
        client.start(SPEC | {"budget": 5}, key="one-cycle")


def test_unknown_things_are_not_found(client: Client) -> None:
    with pytest.raises(NotFound):
        client.selection("cyc_" + "0" * 20)
    with pytest.raises(NotFound):
        client.start(SPEC | {"dataset": "nothing"})


def test_a_cancelled_cycle_frees_the_cluster(client: Client, cycle: str) -> None:
    slow = SPEC | {"table": {"records": 60, "folds": 2, "steps": 200}}
    started = client.start(slow, key="to-cancel")["id"]
    deadline = time.monotonic() + 120
    while client.cycle(started)["status"] != "TRAINING_PROXIES":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert client.call("POST", f"/cycles/{started}/cancel")["status"] == "CANCELLED"
    assert client.call("POST", f"/cycles/{started}/cancel")["status"] == "CANCELLED"
    with pytest.raises(Conflict):
        client.selection(started)


def test_annotations_lead_to_a_retrained_detector(client: Client, cycle: str, folder: Path) -> None:
    asked = client.call("GET", f"/selections/{cycle}", params={"format": "coco"})
    answer = answer_from(asked, json.loads((folder / "train.json").read_text()))
    fewer = answer | {"images": answer["images"][1:]}
    with pytest.raises(InvalidInput):  # one image is missing: nothing is kept
        client.call("POST", f"/cycles/{cycle}/annotations", json=fewer)
    answers = client.call("POST", f"/cycles/{cycle}/annotations", json=answer)
    assert len(answers["matched"]) == BUDGET
    rest = [data for _, data in client.events(cycle, RESTING - {"SELECTED"})][-1]
    assert rest["status"] == "SUCCEEDED"
    report = client.report(cycle)
    assert 0 <= report["test_before"] <= 1
    assert 0 <= report["test_after"] <= 1
    assert report["phases"][-1]["made"] == "detector from 18 labelled images"

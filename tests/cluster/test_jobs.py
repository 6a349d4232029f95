"""Drivers as Ray jobs, on a cluster started as README says: `ray start --head`, with a token."""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import ray
from ray.job_submission import JobSubmissionClient

from mgral_service.app.service import free_port
from mgral_service.cluster import jobs
from mgral_service.cluster.jobs import RayJobLauncher
from mgral_service.datasets.digits import write_digits
from mgral_service.domain.errors import Unavailable

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

RAY = Path(sys.executable).parent / "ray"
EXPERIMENT = """
initial = 12
[dataset]
name = "tiny"
root = "data"
test = "test.json"
[cycle]
budget = 6
strategy = "coreset"
[cycle.detector]
size = 96
steps = 6
batch = 4
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jobs")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The Jobs API of a head node of its own."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    environment = {
        **os.environ,
        "RAY_USAGE_STATS_ENABLED": "0",
        "MGRAL_HOME": str(folder / "home"),
        "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
    }
    command = [str(RAY), "start", "--head", "--block", "--num-cpus", "2"]
    ports = ["--port", str(free_port()), "--dashboard-port", str(port)]
    ports += ["--dashboard-agent-listen-port", str(free_port())]
    with (folder / "ray.log").open("wb") as log:
        head = subprocess.Popen(
            [*command, *ports, "--dashboard-host", "127.0.0.1"],
            stdout=log,
            stderr=log,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    try:
        _wait_for(url)
        yield url
    finally:
        processes = psutil.Process(head.pid).children(recursive=True)
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, 10)
        head.kill()
        head.wait(10)


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            JobSubmissionClient(url).list_jobs()
        except (ConnectionError, RuntimeError):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        else:
            return


def test_ray_job_submit_runs_an_experiment(address: str, folder: Path) -> None:
    write_digits(folder / "data", 40, test=10, size=96)
    (folder / "tiny.toml").write_text(EXPERIMENT)
    command = [str(RAY), "job", "submit", "--address", address, "--"]
    run = ["python", "-m", "mgral_service", "run", "tiny.toml", "--out", "out"]
    answer = subprocess.run([*command, *run], capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    selection = json.loads((folder / "out" / "cycle-1" / "selection.json").read_text())
    assert len(selection["images"]) == 6
    report = json.loads((folder / "out" / "cycle-1" / "report.json").read_text())
    assert report["test_after"] is not None


def test_the_same_attempt_twice_is_one_job(address: str) -> None:
    launcher = RayJobLauncher(address)
    job = launcher.launch("cyc_absent", 1)
    assert launcher.launch("cyc_absent", 1) == job
    listed = [details.submission_id for details in JobSubmissionClient(address).list_jobs()]
    assert listed.count(job) == 1
    launcher.cancel(job)
    deadline = time.monotonic() + 60
    while launcher.alive(job):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    launcher.cancel(job)  # a job that has ended is left alone


def test_a_job_that_never_was_is_not_alive(address: str) -> None:
    launcher = RayJobLauncher(address)
    assert not launcher.alive("mgral-nothing-a1")
    launcher.cancel("mgral-nothing-a1")


def test_a_driver_joins_the_cluster_it_was_submitted_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one that was started last on its machine, which Ray's own RAY_ADDRESS may name."""
    submitted = Mock()
    monkeypatch.setattr(jobs, "JobSubmissionClient", lambda address: submitted)
    launcher = RayJobLauncher("http://127.0.0.1:8265")
    run = f"{shlex.quote(sys.executable)} -m mgral_service run --cycle cyc_1"
    launcher.launch("cyc_1", 1)
    assert submitted.submit_job.call_args.kwargs["entrypoint"] == run
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    context = Mock(gcs_address="10.0.0.7:6379")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    launcher.launch("cyc_1", 1)
    joined = f"env RAY_ADDRESS=10.0.0.7:6379 {run}"
    assert submitted.submit_job.call_args.kwargs["entrypoint"] == joined


@pytest.mark.parametrize("status", [401, 503])
def test_a_cluster_that_refuses_is_unavailable(status: int) -> None:
    """A dashboard that restarts, or a token that is no longer good."""

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        launcher = RayJobLauncher(f"http://127.0.0.1:{server.server_port}")
        for ask in (lambda: launcher.launch("cyc_0", 1), lambda: launcher.alive("x")):
            with pytest.raises(Unavailable, match="Jobs API"):
                ask()
        server.shutdown()


def test_a_cluster_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        RayJobLauncher(f"http://127.0.0.1:{free_port()}").launch("cyc_0", 1)

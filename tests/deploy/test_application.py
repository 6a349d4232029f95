"""The application, from deploy/serve-config.yaml on a head of its own: what compose does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from mgral_service.cluster.local import use_token
from mgral_service.service import free_port
from mgral_service.store.embedded import EmbeddedValkey

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

Document = dict[str, Any]
BINARIES = Path(sys.executable).parent
TOKEN = "a-token-for-this-test"
START_S = 150.0


@pytest.fixture(scope="module")
def deployed(
    serve_config: Document,
    tmp_path_factory: pytest.TempPathFactory,
    valkey: EmbeddedValkey,
) -> Iterator[str]:
    """URL of the application. Of the file only the address is changed: it may be in use here."""
    folder = tmp_path_factory.mktemp("deployed")
    kept = dict(os.environ)
    use_token(folder)
    jobs, port = free_port(), free_port()
    environment = {
        **os.environ,
        "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "MGRAL_HOME": str(folder / "home"),
        "MGRAL_REDIS_URL": valkey.url,
        "MGRAL_TOKEN": TOKEN,
        "MGRAL_JOBS_URL": f"http://127.0.0.1:{jobs}",
    }
    os.environ.clear()
    os.environ.update(kept)
    config = folder / "serve-config.yaml"
    http_options = {**serve_config["http_options"], "host": "127.0.0.1", "port": port}
    config.write_text(yaml.safe_dump({**serve_config, "http_options": http_options}))
    with (folder / "ray.log").open("wb") as log:
        head = subprocess.Popen(
            [
                *("ray", "start", "--head", "--block", "--num-cpus", "2"),
                *("--port", str(free_port()), "--node-ip-address", "127.0.0.1"),
                *("--dashboard-host", "127.0.0.1", "--dashboard-port", str(jobs)),
                *("--object-store-memory", str(128 * 2**20)),
                *("--resources", '{"gateway": 2, "agent": 4}'),
            ],
            stdout=log,
            stderr=log,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    try:
        _deploy(config, jobs, environment)
        url = f"http://127.0.0.1:{port}"
        _wait_until_running(jobs, environment)
        yield url
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(60)


def _serve(words: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["serve", *words],
        env=environment,
        executable=BINARIES / "serve",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _deploy(config: Path, jobs: int, environment: dict[str, str]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        done = _serve(["deploy", str(config), "-a", f"http://127.0.0.1:{jobs}"], environment)
        if done.returncode == 0:
            return
        assert time.monotonic() < deadline, done.stderr
        time.sleep(1)


def _wait_until_running(jobs: int, environment: dict[str, str]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        done = _serve(["status", "-a", f"http://127.0.0.1:{jobs}"], environment)
        status = yaml.safe_load(done.stdout) if done.returncode == 0 else {}
        application = (status or {}).get("applications", {}).get("mgral", {})
        if application.get("status") == "RUNNING":
            replicas = {
                name: one["replica_states"].get("RUNNING")
                for name, one in application["deployments"].items()
            }
            assert replicas == {"Gateway": 2, "SelectionAgent": 1}
            return
        assert application.get("status") != "DEPLOY_FAILED", done.stdout
        assert time.monotonic() < deadline, done.stdout + done.stderr
        time.sleep(1)


def test_it_lives_and_is_ready(deployed: str) -> None:
    assert httpx.get(f"{deployed}/livez", timeout=20).status_code == 200
    assert httpx.get(f"{deployed}/readyz", timeout=20).status_code == 200


def test_its_token_is_asked_for(deployed: str) -> None:
    assert httpx.get(f"{deployed}/datasets", timeout=20).status_code == 401
    answer = httpx.get(
        f"{deployed}/datasets", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=20
    )
    assert answer.status_code == 200
    assert json.loads(answer.text)

"""The application, from deploy/serve-config.yaml on a head of its own: what compose does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest
import yaml

from mgral_service.app.service import free_port, use_token
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
    environ = dict(os.environ)
    use_token(folder)
    jobs, port = free_port(), free_port()
    environment = {
        **os.environ,
        "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "1",  # nothing here is worth waiting for
        "MGRAL_HOME": str(folder / "home"),
        "MGRAL_REDIS_URL": valkey.url,
        "MGRAL_TOKEN": TOKEN,
        "MGRAL_JOBS_URL": f"http://127.0.0.1:{jobs}",
    }
    os.environ.clear()
    os.environ.update(environ)
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
        _deploy(config, environment["MGRAL_JOBS_URL"], environment)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(head.pid, signal.SIGTERM)
        head.wait(60)


def _deploy(config: Path, api: str, environment: dict[str, str]) -> None:
    token = Path(environment["RAY_AUTH_TOKEN_PATH"]).read_text()
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=api, headers=headers, timeout=20) as client:
        _until(lambda: _answers(client))
        done = subprocess.run(
            [BINARIES / "serve", "deploy", str(config), "-a", api],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        _until(lambda: _runs(client))


def _until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_S
    while not done():
        assert time.monotonic() < deadline, "the application did not start in time"
        time.sleep(0.5)


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/api/version").status_code == 200
    except httpx.TransportError:
        return False


def _runs(client: httpx.Client) -> bool:
    """Whether every replica that the file asks for runs; what went wrong if one cannot."""
    application = client.get("/api/serve/applications/").json()["applications"].get("mgral", {})
    status = application.get("status")
    assert status not in {"DEPLOY_FAILED", "UNHEALTHY"}, application["message"]
    if status != "RUNNING":
        return False
    replicas = {
        name: [replica["state"] for replica in deployment["replicas"]]
        for name, deployment in application["deployments"].items()
    }
    assert replicas == {"Gateway": ["RUNNING", "RUNNING"], "SelectionAgent": ["RUNNING"]}
    return True


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

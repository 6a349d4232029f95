"""A cluster on this machine, with the Serve application on it: what `mgral up` runs."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import ray
from ray import serve
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from mgral_service.cluster.serving import APP
from mgral_service.domain.errors import Conflict

AGENT_PORT = 52365  # ray.init offers no other
ENDING_S = 15.0  # what Ray has not ended by then is killed
OBJECT_STORE_BYTES = 512 * 2**20  # uint8 images and embeddings of a pool


@contextmanager
def local_cluster(jobs_port: int, cpus: int | None = None) -> Iterator[None]:
    """Ray with its dashboard on loopback, ended on leaving.

    Conflict while another Ray holds the port that Ray's job agent always takes: without its agent
    this one could never start a driver.
    """
    _await_agent_port()
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = set(psutil.Process().children(recursive=True))
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=True,
        dashboard_host="127.0.0.1",
        dashboard_port=jobs_port,
        log_to_driver=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _node_ip_address="127.0.0.1",
    )
    try:
        yield
    finally:
        started = set(psutil.Process().children(recursive=True)) - before
        serve.shutdown()
        ray.shutdown()
        _, left = psutil.wait_procs(started, ENDING_S)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def _await_agent_port() -> None:
    """Wait a little for a cluster that is just ending."""
    patient = Retrying(
        retry=retry_if_exception_type(OSError),
        stop=stop_after_delay(ENDING_S),
        wait=wait_fixed(0.5),
        reraise=True,
    )
    try:
        patient(lambda: socket.create_server(("127.0.0.1", AGENT_PORT)).close())
    except OSError:
        raise Conflict(
            f"another Ray runs on this machine (port {AGENT_PORT} is taken): stop it, or deploy to "
            "it with `serve deploy deploy/serve-config.yaml`"
        ) from None


def serve_here(application: serve.Application, host: str, port: int) -> None:
    """Start the application; returns when it answers."""
    serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "WARNING"})
    serve.run(application, name=APP, route_prefix="/")

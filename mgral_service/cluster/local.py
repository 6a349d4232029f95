"""A cluster on this machine, with the Serve application on it: what `mgral up` runs."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import ray
from ray import serve

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
    deadline = time.monotonic() + ENDING_S
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", AGENT_PORT))
            except OSError:
                if time.monotonic() > deadline:
                    raise Conflict(
                        f"another Ray runs on this machine (port {AGENT_PORT} is taken): stop it, "
                        "or deploy to it with `serve deploy deploy/serve-config.yaml`"
                    ) from None
            else:
                return
        time.sleep(0.5)


def serve_here(application: serve.Application, host: str, port: int) -> None:
    """Start the application; returns when it answers."""
    serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "WARNING"})
    serve.run(application, name=APP, route_prefix="/")

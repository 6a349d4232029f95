"""A cluster on this machine, with the Serve application on it: what `mgral up` runs."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray import serve

from mgral_service.cluster.serving import APP

OBJECT_STORE_BYTES = 512 * 2**20  # uint8 images and embeddings of a pool


def use_token(folder: Path) -> None:
    """Ray's token authentication for this process and those it starts; a token is made once."""
    file = folder / "ray_token"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_hex(32))
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(file))


@contextmanager
def local_cluster(jobs_port: int, cpus: int | None = None) -> Iterator[None]:
    """Ray with its dashboard on loopback, ended on leaving."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
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
        serve.shutdown()
        ray.shutdown()


def serve_here(application: serve.Application, host: str, port: int) -> None:
    """Start the application; returns when it answers."""
    serve.start(http_options={"host": host, "port": port}, logging_config={"log_level": "WARNING"})
    serve.run(application, name=APP, route_prefix="/")

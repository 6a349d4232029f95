"""Fixtures that several folders share: one embedded server a session, fresh stores a test."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mgral_service.domain.ports import Stores
from mgral_service.store.embedded import EmbeddedValkey
from mgral_service.store.redis import redis_stores
from tests.memory_stores import memory_stores

# Small tensors: threads that wait for each other cost more than they bring, most of all beside
# other work. Read when torch is first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MGRAL_DRIVER_THREADS", "1")

# Ray reads its authentication mode when it is first imported: one token for all clusters of a run.
_TOKEN = Path(tempfile.mkdtemp(prefix="mgral-test-")) / "ray_token"
_TOKEN.touch(mode=0o600)
_TOKEN.write_text(secrets.token_hex(32))
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(_TOKEN)}


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """Of the keys of one test."""
    return f"test:{request.node.nodeid}:"


@pytest.fixture(params=["memory", "redis"])
def stores(request: pytest.FixtureRequest) -> Stores:
    """Each adapter's empty stores."""
    if request.param == "memory":
        return memory_stores()
    server: EmbeddedValkey = request.getfixturevalue("valkey")
    return redis_stores(server.url, request.getfixturevalue("prefix"), patience_s=2.0)


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A local Ray of two CPUs without dashboard."""
    import ray

    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        object_store_memory=200 * 2**20, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    yield
    ray.shutdown()

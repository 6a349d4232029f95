from collections.abc import Iterator

import pytest
import ray


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A local Ray of two CPUs without dashboard."""
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False,
        object_store_memory=200 * 2**20, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    yield
    ray.shutdown()

"""A node that the cloud takes back: a cluster of two workers on this machine loses one of them."""

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.worker import global_worker
from ray.cluster_utils import Cluster

from mgral_service.cluster.proxies import RayProxyTrainer
from mgral_service.domain.ports import NOTHING, Weights
from mgral_service.domain.records import ProxyResult, ProxySpec
from tests.fakes import proxy_spec

pytestmark = pytest.mark.cluster

PREEMPTION = 2  # DrainNodeReason of Ray's autoscaler protocol
NOTICE_S = 0.5


class HangingTrainer:
    """Proxy 1 hangs at its first try; each try leaves the id of its node."""

    def __init__(self, marks: Path) -> None:
        self._marks = marks

    def train(
        self, specs: Sequence[ProxySpec], starts: Mapping[int | None, Weights] = NOTHING
    ) -> Iterator[ProxyResult]:
        for spec in specs:
            mark = self._marks / f"{spec.index}"
            with mark.open("a") as line:
                line.write(f"{ray.get_runtime_context().get_node_id()}\n")
            if spec.index == 1 and len(mark.read_text().split()) == 1:
                time.sleep(300)
            yield ProxyResult(spec.index, spec.index / 10, 0.5)


@pytest.fixture
def nodes() -> Iterator[tuple[Cluster, dict[str, Any]]]:
    """A head that trains nothing, and two workers of one CPU by their ids."""
    store = 100 * 2**20
    health = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 0,
            "include_dashboard": False,
            "object_store_memory": store,
            "_system_config": {"health_check_initial_delay_ms": 0, **health},
        },
    )
    workers = [cluster.add_node(num_cpus=1, object_store_memory=store) for _ in range(2)]
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster, {worker.node_id: worker for worker in workers}
    ray.shutdown()
    cluster.shutdown()


def preempt(cluster: Cluster, worker: Any) -> None:
    """As an autoscaler does: Ray gets notice, then the machine is gone."""
    deadline = int((time.time() + NOTICE_S) * 1000)
    global_worker.gcs_client.drain_node(worker.node_id, PREEMPTION, "spot", deadline)
    time.sleep(NOTICE_S + 0.1)
    cluster.remove_node(worker, allow_graceful=False)


def test_a_preempted_proxy_starts_over_on_another_node_and_nothing_has_failed(
    nodes: tuple[Cluster, dict[str, Any]], tmp_path: Path
) -> None:
    cluster, workers = nodes
    tune = tmp_path / "tune"
    trainer = RayProxyTrainer(partial(HangingTrainer, tmp_path), 1, 1.0, 0.0, 0, tune)
    specs = [proxy_spec(index) for index in range(3)]
    mark = tmp_path / "1"
    with ThreadPoolExecutor(1) as pool:
        results = pool.submit(lambda: list(trainer.train(specs)))
        while not (mark.exists() and mark.read_text()):
            time.sleep(0.1)
        preempt(cluster, workers[mark.read_text().strip()])
        by_index = sorted(results.result(), key=lambda result: result.index)
    assert [result.score for result in by_index] == [0.0, 0.1, 0.2]
    assert [result.interruptions for result in by_index] == [0, 1, 0]
    first, second = mark.read_text().split()
    assert {first, second} == set(workers)

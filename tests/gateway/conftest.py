"""A gateway over memory with doubles of its launcher and selector."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import httpx2 as httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from mgral_service import codec
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import CycleNotReady, InvalidInput, Unavailable
from mgral_service.domain.ports import Stores
from mgral_service.domain.records import (
    CycleRecord,
    DatasetImages,
    DatasetRecord,
    Reconciliation,
    SelectedImage,
    Selection,
    Status,
)
from mgral_service.domain.specs import CycleSpec, DatasetSpec
from mgral_service.gateway.app import GatewayPorts, create_app
from tests.fakes import boxes_in, dataset_images, dataset_record
from tests.memory_stores import memory_stores


@dataclass
class FakeLauncher:
    """Notes what it is asked; `down`: the cluster cannot be reached."""

    launched: list[tuple[str, int]] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    down: bool = False

    def launch(self, cycle: str, attempt: int) -> str:
        if self.down:
            raise Unavailable("cluster", "down")
        self.launched.append((cycle, attempt))
        return f"job-{cycle}-{attempt}"

    def cancel(self, job: str) -> None:
        self.cancelled.append(job)

    def alive(self, job: str) -> bool:
        return job not in self.dead


@dataclass
class FakeSelector:
    """The stored selection; for another budget the first so many of img_5, img_4, ..."""

    stores: Stores

    def top(self, cycle: str, budget: int | None) -> Selection:
        record = self.stores.cycles.get(cycle)
        text = self.stores.cycles.attachment(cycle, "selection")
        if text is None or not record.status.has_selection:
            raise CycleNotReady(cycle, record.status)
        stored = codec.decode(Selection, text)
        if budget is None:
            return stored
        best = ("img_5", "img_4", "img_3", "img_2", "img_1", "img_0")
        return replace(stored, images=images(best[:budget]))


def images(ids: Sequence[str]) -> tuple[SelectedImage, ...]:
    return tuple(
        SelectedImage(image_id, rank, 1 / rank, f'"{image_id}" is best')
        for rank, image_id in enumerate(ids, start=1)
    )


def read_answers(
    payload: Any, record: DatasetRecord, images: DatasetImages, selected: Sequence[str]
) -> tuple[Annotations, Reconciliation]:
    """Takes {"images": [id, ...]}, one box each."""
    if not isinstance(payload, dict):
        raise InvalidInput("annotations", "must be an object")
    posted = payload["images"]
    matched = tuple(name for name in selected if name in posted)
    answers = Reconciliation(
        matched=matched,
        unknown=tuple(name for name in posted if name not in selected),
        missing=tuple(name for name in selected if name not in posted),
        refused=(),
        boxes=len(matched),
    )
    return boxes_in(*matched), answers


def export_coco(
    selection: Selection, record: DatasetRecord, images: DatasetImages
) -> dict[str, Any]:
    return {"images": [image.image_id for image in selection.images]}


def ingest(spec: DatasetSpec) -> tuple[DatasetRecord, DatasetImages]:
    return replace(dataset_record(), spec=spec), dataset_images()


def check(spec: CycleSpec) -> None:
    if spec.strategy == "magic":
        raise InvalidInput("strategy", "is unknown")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def ports_over(stores: Stores, **changes: Any) -> GatewayPorts:
    """A dataset "digits" is registered."""
    stores.datasets.add(dataset_record(), dataset_images())
    numbers = itertools.count(1)
    ports = GatewayPorts(
        stores=stores,
        launcher=FakeLauncher(),
        selector=FakeSelector(stores),
        ingest=ingest,
        read_answers=read_answers,
        export_coco=export_coco,
        check=check,
        clock=Clock(),
        new_id=lambda: f"cyc_{next(numbers)}",
    )
    return replace(ports, **changes)


@pytest.fixture
def ports() -> GatewayPorts:
    return ports_over(memory_stores())


@pytest.fixture
def launcher(ports: GatewayPorts) -> FakeLauncher:
    assert isinstance(ports.launcher, FakeLauncher)
    return ports.launcher


def local(ports: GatewayPorts, **options: Any) -> TestClient:
    """A client on the gateway's own machine."""
    options = {"base_url": "http://127.0.0.1", "client": ("127.0.0.1", 50000)} | options
    return TestClient(create_app(ports), **options)


@pytest.fixture
def http(ports: GatewayPorts) -> Iterator[TestClient]:
    with local(ports, raise_server_exceptions=False) as client:
        yield client


def reach(ports: GatewayPorts, cycle: str, status: Status) -> CycleRecord:
    """What a driver writes up to a status; from SELECTED on with a selection of img_0, img_1."""
    record = replace(ports.stores.cycles.get(cycle), status=status, updated=ports.clock())
    if status.has_selection:
        chosen = Selection(cycle, "digits", "mgral", "entropy", images(["img_0", "img_1"]))
        text = codec.encode(chosen)
        ports.stores.cycles.put_attachment(cycle, "selection", text, None)
    ports.stores.cycles.put(record, None)
    ports.stores.events.append(cycle, "cycle.state_changed", {"status": status.value})
    return ports.stores.cycles.get(cycle)


@contextmanager
def served(ports: GatewayPorts) -> Iterator[httpx.Client]:
    """A client of a real server on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(
        create_app(ports), port=port, log_level="error", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()

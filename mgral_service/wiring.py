"""The composition root: one function per process role, imports inside, so that the gateway needs no
torch and a GPU machine no FastAPI.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgral_service import codec
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import CycleNotReady, InvalidInput, NotFound
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import ProxyTrainer, QueryStrategy, Report
from mgral_service.domain.records import CycleRecord, DatasetRecord, Selection
from mgral_service.domain.specs import CycleSpec, DatasetSpec, DetectorSpec
from mgral_service.settings import Settings, from_environment
from mgral_service.store import Stores

if TYPE_CHECKING:
    from ray import serve

    from mgral_service.cycle import Workbench
    from mgral_service.datasets.loading import ImageStore
    from mgral_service.driver import DriverPorts
    from mgral_service.gateway.app import GatewayPorts

DRIVER_PATIENCE_S = 30.0  # a driver outlives a restart of the store
GATEWAY_PATIENCE_S = 2.0


def new_cycle_id() -> str:
    return "cyc_" + secrets.token_hex(10)


def stores(settings: Settings, patience_s: float) -> Stores:
    """The stores at MGRAL_REDIS_URL. InvalidInput if there is none: see `embedded_store`."""
    from mgral_service.store.redis import redis_stores

    if settings.redis_url is None:
        raise InvalidInput("MGRAL_REDIS_URL", "is not set: start the service with `mgral up`")
    return redis_stores(settings.redis_url.get_secret_value(), patience_s=patience_s)


@contextmanager
def with_store(settings: Settings) -> Iterator[Settings]:
    """The settings with a Redis URL: theirs, or that of an embedded server kept until the end."""
    from pydantic import SecretStr

    from mgral_service.store.embedded import EmbeddedValkey

    if settings.redis_url is not None:
        yield settings
        return
    with EmbeddedValkey(settings.home / "valkey") as server:
        yield settings.model_copy(update={"redis_url": SecretStr(server.url)})


# --- datasets -----------------------------------------------------------------------------------


def ingest(settings: Settings, spec: DatasetSpec, report: Report | None = None) -> DatasetRecord:
    """Read and check a dataset; DatasetRefused if it cannot be used or lies elsewhere."""
    from mgral_service import datasets

    for where in ("root", "labelled", "unlabelled", "scoring", "test"):
        _require_below(settings, where, Path(spec.root) / (getattr(spec, where) or ""))
    return datasets.record_of(spec, datasets.ingest(spec, report), time.time())


def _require_below(settings: Settings, where: str, path: Path) -> None:
    if settings.data_root and not path.resolve().is_relative_to(settings.data_root.resolve()):
        raise InvalidInput(where, "must lie below MGRAL_DATA_ROOT of the service")


def require_weights_below(settings: Settings, detector: DetectorSpec) -> None:
    """InvalidInput for a file of weights elsewhere; a name is none."""
    file = Path(detector.weights or "").expanduser()
    if detector.weights is not None and file.exists():
        _require_below(settings, "detector.weights", file)


# --- the driver ---------------------------------------------------------------------------------


def driver_ports(settings: Settings) -> DriverPorts:
    from mgral_service.driver import DriverPorts
    from mgral_service.store.artifacts import FileArtifacts

    kept = stores(settings, DRIVER_PATIENCE_S)
    return DriverPorts(
        kept, FileArtifacts(settings.home / "cycles"), partial(workbench, settings, kept)
    )


def device_of(settings: Settings) -> str:
    import torch

    if settings.device != "auto":
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def workbench(
    settings: Settings, kept: Stores, record: CycleRecord, split: PoolSplit, report: Report
) -> Workbench:
    """Detector, proxies and annotations of one cycle; decodes every image once, or finds them all
    in the file of an earlier cycle.
    """
    import torch

    from mgral_service import cycle, datasets
    from mgral_service.cluster.proxies import RayProxyTrainer, connect, processors
    from mgral_service.datasets.loading import load_images
    from mgral_service.detectors.local import TaskDetector
    from mgral_service.domain.seeds import Purpose, seed_of
    from mgral_service.metrics import METRICS

    connect()
    torch.set_num_threads(settings.driver_threads or processors())
    spec = record.spec
    check(spec)
    require_weights_below(settings, spec.detector)
    dataset = kept.datasets.get(spec.dataset)
    images = load_images(
        dataset.spec.root, dataset.images, spec.detector.size, report, settings.home / "images"
    )
    annotations = datasets.annotations_of(dataset)
    for _, answered in kept.datasets.labels(spec.dataset):
        known = set(annotations.ids)
        new = [one for one in answered.ids if one in split.labelled and one not in known]
        annotations = Annotations.concat([annotations, answered.subset(new)])
    device = device_of(settings)
    detector = TaskDetector(
        spec.detector,
        dataset.classes,
        images,
        METRICS[spec.metric](),
        seed_of(spec.seed, Purpose.DETECTOR),
        device,
    )
    shown = annotations.subset((*split.labelled, *split.scoring))
    proxies = RayProxyTrainer(
        partial(local_proxies, spec, dataset.classes, images, shown, split.scoring, device),
        spec.table.actors,
        spec.table.cpus,
        spec.table.gpus,
        spec.table.max_failures,
        settings.home / "tune" / record.id,
    )
    return cycle.Workbench(
        record.id,
        spec,
        split,
        dataset.classes,
        annotations,
        detector,
        proxies,
        strategy,
    )


def strategy(name: str) -> QueryStrategy:
    """By its name in STRATEGIES."""
    from mgral_service.strategies import STRATEGIES

    return STRATEGIES[name]()


def check(spec: CycleSpec) -> None:
    """`strategies.check`."""
    from mgral_service import strategies

    strategies.check(spec)


def local_proxies(
    spec: CycleSpec,
    classes: tuple[str, ...],
    images: ImageStore,
    known: Annotations,
    scoring: Sequence[str],
    device: str,
) -> ProxyTrainer:
    """What one actor holds. Its threads follow `table.cpus`, never the number of actors, so that
    the sums of a training, and with them its score, do not depend on how many train beside it.
    """
    import torch

    from mgral_service.detectors.local import LocalProxyTrainer
    from mgral_service.metrics import METRICS

    torch.set_num_threads(max(1, round(spec.table.cpus)))
    return LocalProxyTrainer(
        spec.detector,
        spec.table,
        classes,
        images,
        known,
        scoring,
        METRICS[spec.rewarded_by](),
        device,
    )


# --- the service --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class StoredSelector:
    """Selector: the stored selection, or with another budget what `rank` answers."""

    kept: Stores
    rank: Callable[[str, int], Selection]

    def top(self, cycle: str, budget: int | None) -> Selection:
        record = self.kept.cycles.get(cycle)
        text = self.kept.cycles.document(cycle, "selection")
        if text is None or not record.status.has_selection:
            raise CycleNotReady(cycle, record.status)
        stored = codec.stored(Selection, text, "selection of cycle", cycle)
        if budget is None or budget == len(stored.images):
            return stored
        return self.rank(cycle, budget)


def load_ranker(cycle: str) -> Callable[[int], Selection]:
    """The ranking of a cycle's winner, from its artifacts: what a Serve replica holds."""
    from mgral_service.cycle import selection_of
    from mgral_service.domain.seeds import Purpose, stream
    from mgral_service.store.artifacts import FileArtifacts, arrays_to_observation
    from mgral_service.strategies import rerank

    settings = from_environment()
    kept = stores(settings, GATEWAY_PATIENCE_S)
    artifacts = FileArtifacts(settings.home / "cycles")
    record = kept.cycles.get(cycle)
    seen, agent = artifacts.get(cycle, "observation"), artifacts.get(cycle, "agent")
    text = kept.cycles.document(cycle, "split")
    if seen is None or agent is None or text is None:
        raise NotFound("trained agent of cycle", cycle)
    observation = arrays_to_observation(*seen)
    split = codec.stored(PoolSplit, text, "pool of cycle", cycle)
    classes = kept.datasets.get(record.spec.dataset).classes
    arrays, words = agent

    def rank(budget: int) -> Selection:
        choice = rerank(
            record.spec,
            split,
            observation,
            classes,
            arrays,
            words["winner"],
            budget,
            stream(record.spec.seed, Purpose.SELECT),
        )
        return selection_of(cycle, record.spec, choice, observation, classes)

    return rank


def probe_agent() -> None:
    """A tiny inference through the policy; raises if its scores are not finite."""
    import numpy as np

    from mgral_service.agent.policy import probe

    if not np.isfinite(probe()).all():
        raise RuntimeError("the policy gives scores that are not finite")


def gateway_ports(rank: Callable[[str, int], Selection]) -> GatewayPorts:
    """The gateway's ports, from the environment. `rank` answers for another budget."""
    from mgral_service.cluster.jobs import RayJobLauncher
    from mgral_service.datasets.answers import coco_of, read_answers
    from mgral_service.gateway.app import GatewayPorts

    settings = from_environment()
    kept = stores(settings, GATEWAY_PATIENCE_S)
    launcher = RayJobLauncher(settings.jobs_url, settings.driver_gpus)
    return GatewayPorts(
        stores=kept,
        launcher=launcher,
        selector=StoredSelector(kept, rank),
        ingest=partial(ingest, settings),
        read_answers=read_answers,
        export_coco=coco_of,
        check=check,
        clock=time.time,
        new_id=new_cycle_id,
        token=settings.token.get_secret_value() if settings.token else None,
        checks={"cluster": launcher.ping},
    )


def gateway_app() -> Any:
    """The gateway's ASGI app, for Serve (which ranks) and for `uvicorn --factory`.

    A thread beside it gives cycles whose driver died a new one.
    """
    from mgral_service.cluster.serving import ServeRanker
    from mgral_service.gateway.app import create_app
    from mgral_service.gateway.supervision import supervise

    ports = gateway_ports(ServeRanker())
    threading.Thread(target=supervise, args=(ports, threading.Event()), daemon=True).start()
    return create_app(ports)


def serve_application(args: dict[str, str]) -> serve.Application:
    """What `import_path` of the Serve config names; the config sets replicas and resources."""
    from mgral_service.cluster.serving import application

    return application(gateway_app, load_ranker, probe_agent)

"""The composition root: one function per process role, imports inside, so that the gateway needs no
torch and a GPU machine no FastAPI.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgral_service import codec
from mgral_service.app.settings import Settings, from_environment
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import CycleNotReady, InvalidInput, NotFound
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import Detector, ProxyTrainer, QueryStrategy, Report, Stores
from mgral_service.domain.records import CycleRecord, DatasetImages, DatasetRecord, Selection
from mgral_service.domain.specs import CycleSpec, DatasetSpec, DetectorSpec

if TYPE_CHECKING:
    from ray import serve

    from mgral_service.app.driver import DriverPorts
    from mgral_service.cycle.context import CycleContext
    from mgral_service.datasets import Ingested, Sink
    from mgral_service.datasets.loading import ImageStore

DRIVER_PATIENCE_S = 30.0  # a driver outlives a restart of the store
GATEWAY_PATIENCE_S = 2.0

DecodedImages = dict[tuple[str, int], "ImageStore"]
"""Images that this process has decoded, by dataset name and training side."""


def stores(settings: Settings, patience_s: float) -> Stores:
    """The stores at MGRAL_REDIS_URL. InvalidInput if it is not set."""
    from mgral_service.store.redis import redis_stores

    if settings.redis_url is None:
        raise InvalidInput("MGRAL_REDIS_URL", "is not set: start the service with `mgral up`")
    return redis_stores(settings.redis_url.get_secret_value(), patience_s=patience_s)


@contextmanager
def with_store(settings: Settings) -> Iterator[Settings]:
    """The settings with a Redis URL: their own, or that of an embedded server that runs until the
    end.
    """
    if settings.redis_url is not None:
        yield settings
        return
    from pydantic import SecretStr

    from mgral_service.store.embedded import EmbeddedValkey

    with EmbeddedValkey(settings.home / "valkey") as server:
        yield settings.model_copy(update={"redis_url": SecretStr(server.url)})


# --- specs --------------------------------------------------------------------------------------


def check(spec: CycleSpec) -> None:
    """InvalidInput, before anything trains, for a name that its registry does not have."""
    from mgral_service import detectors, metrics, strategies

    for registry in (strategies, detectors, metrics):
        registry.check(spec)


def ingest(
    settings: Settings, spec: DatasetSpec, report: Report | None = None, sink: Sink | None = None
) -> Ingested:
    """Read and check a dataset; DatasetRefused if it cannot be used, InvalidInput for one outside
    MGRAL_DATA_ROOT.
    """
    from mgral_service import datasets

    datasets.format_of(spec)
    for role in ("root", "labelled", "unlabelled", "scoring", "test"):
        _require_below(settings, role, Path(spec.root) / (getattr(spec, role) or ""))
    return datasets.ingest(spec, report, time.time(), sink)


def require_weights_below(settings: Settings, detector: DetectorSpec) -> None:
    """InvalidInput for a file of weights outside MGRAL_DATA_ROOT; a name is no file."""
    file = Path(detector.weights or "").expanduser()
    if detector.weights is not None and file.exists():
        _require_below(settings, "detector.weights", file)


def _require_below(settings: Settings, where: str, path: Path) -> None:
    if settings.data_root and not path.resolve().is_relative_to(settings.data_root.resolve()):
        raise InvalidInput(where, "must lie below MGRAL_DATA_ROOT of the service")


# --- the driver ---------------------------------------------------------------------------------


def driver_ports(settings: Settings, decoded: DecodedImages | None = None) -> DriverPorts:
    """decoded: images that need no decoding; those of the driven cycles are added."""
    from mgral_service.app.driver import DriverPorts
    from mgral_service.store.artifacts import FileArtifacts

    records = stores(settings, DRIVER_PATIENCE_S)
    context = partial(cycle_context, settings, records, {} if decoded is None else decoded)
    return DriverPorts(records, FileArtifacts(settings.home / "cycles"), context)


def device_of(settings: Settings) -> str:
    import torch

    if settings.device != "auto":
        return settings.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def cycle_context(
    settings: Settings,
    records: Stores,
    decoded: DecodedImages,
    cycle: CycleRecord,
    split: PoolSplit,
    report: Report,
) -> CycleContext:
    """Detector, proxies and annotations of a cycle, on images that are decoded unless they are in
    `decoded`, or in a file of an earlier cycle.
    """
    import torch

    from mgral_service import datasets
    from mgral_service.cluster.proxies import RayProxyTrainer, connect, processors
    from mgral_service.cycle.context import CycleContext
    from mgral_service.datasets.loading import load_images
    from mgral_service.detectors.local import fold_spec

    connect()
    torch.set_num_threads(settings.driver_threads or processors())
    spec = cycle.spec
    check(spec)
    require_weights_below(settings, spec.detector)
    dataset, listed = records.datasets.get(spec.dataset), records.datasets.images(spec.dataset)
    key = (spec.dataset, spec.detector.size)
    if key not in decoded:
        folder = settings.home / "images"
        decoded[key] = load_images(dataset.spec.root, listed.images, key[1], report, folder)
    images = decoded[key]
    annotations = datasets.annotations_of(dataset, listed)
    for _, answers in records.datasets.labels(spec.dataset):
        new = {*answers.ids} & split.labelled.keys() - {*annotations.ids}
        annotations = Annotations.concat([annotations, answers.subset(sorted(new))])
    device = device_of(settings)
    visible = annotations.subset((*split.labelled, *split.scoring))
    detector = fold_detector = task_detector(spec, dataset.classes, images, device)
    in_folds = replace(spec, detector=fold_spec(spec.detector, spec.table))
    if in_folds != spec:
        fold_detector = task_detector(in_folds, dataset.classes, images, device)
    return CycleContext(
        id=cycle.id,
        spec=spec,
        split=split,
        classes=dataset.classes,
        annotations=annotations,
        detector=detector,
        fold_detector=fold_detector,
        proxies=RayProxyTrainer(
            partial(local_proxies, spec, dataset.classes, images, visible, device),
            spec.table.actors,
            spec.table.cpus,
            spec.table.gpus,
            spec.table.advanced.max_failures,
            settings.home / "tune" / cycle.id,
        ),
        strategy=strategy,
    )


def strategy(name: str) -> QueryStrategy:
    """By its name in STRATEGIES."""
    from mgral_service.strategies import STRATEGIES

    return STRATEGIES[name]()


def task_detector(
    spec: CycleSpec, classes: Sequence[str], images: ImageStore, device: str
) -> Detector:
    """The detector of a cycle, untrained."""
    from mgral_service.detectors.local import TaskDetector
    from mgral_service.domain.seeds import Purpose, seed_of
    from mgral_service.metrics import METRICS

    seed = seed_of(spec.seed, Purpose.DETECTOR)
    return TaskDetector(spec.detector, classes, images, METRICS[spec.metric](), seed, device)


def local_proxies(
    spec: CycleSpec,
    classes: Sequence[str],
    images: ImageStore,
    annotations: Annotations,
    device: str,
) -> ProxyTrainer:
    """The trainer of one actor; annotations: of the labelled and scoring images.

    Its threads follow `table.cpus` and not the number of actors: the sums of a training, and with
    them its score, must not depend on how many train beside it.
    """
    import torch

    from mgral_service.detectors.local import LocalProxyTrainer
    from mgral_service.metrics import METRICS

    torch.set_num_threads(max(1, round(spec.table.cpus)))
    metric = METRICS[spec.rewarded_by]()
    return LocalProxyTrainer(
        spec.detector, spec.table, classes, images, annotations, metric, device
    )


# --- the service --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class StoredSelector:
    """Selector: the stored selection, or `rank(cycle, budget)` for another budget."""

    stores: Stores
    rank: Callable[[str, int], Selection]

    def top(self, cycle: str, budget: int | None) -> Selection:
        record = self.stores.cycles.get(cycle)
        text = self.stores.cycles.attachment(cycle, "selection")
        if text is None or not record.status.has_selection:
            raise CycleNotReady(cycle, record.status)
        stored = codec.stored(Selection, text, "selection of cycle", cycle)
        if budget is None or budget == len(stored.images):
            return stored
        return self.rank(cycle, budget)


def load_ranker(cycle: str) -> Callable[[int], Selection]:
    """The ranking of a cycle's winner, from its artifacts: what a Serve replica holds."""
    from mgral_service.cycle.run import selection_of
    from mgral_service.domain.candidate_pool import CandidatePool
    from mgral_service.domain.seeds import Purpose, stream
    from mgral_service.store.artifacts import FileArtifacts, arrays_to_predictions
    from mgral_service.strategies import rerank

    settings = from_environment()
    records = stores(settings, GATEWAY_PATIENCE_S)
    artifacts = FileArtifacts(settings.home / "cycles")
    spec = records.cycles.get(cycle).spec
    predicted, agent = artifacts.get(cycle, "predictions-pool"), artifacts.get(cycle, "agent")
    text = records.cycles.attachment(cycle, "split")
    if predicted is None or agent is None or text is None:
        raise NotFound("trained agent of cycle", cycle)
    predictions = arrays_to_predictions(*predicted)
    split = codec.stored(PoolSplit, text, "pool of cycle", cycle)
    classes = records.datasets.get(spec.dataset).classes
    weights, metadata = agent

    def rank(budget: int) -> Selection:
        pool = CandidatePool(predictions, split.labelled, split.unlabelled, classes, budget)
        rng = stream(spec.seed, Purpose.SELECT)
        choice = rerank(spec, pool, weights, metadata["winner"], rng)
        return selection_of(cycle, spec, choice, predictions, classes)

    return rank


def probe_agent() -> None:
    """A tiny inference through the policy; RuntimeError if its scores are not finite."""
    import numpy as np

    from mgral_service.agent.policy import probe

    if not np.isfinite(probe()).all():
        raise RuntimeError("the policy gives scores that are not finite")


def gateway_app() -> Any:
    """The gateway's ASGI app, for Serve (which ranks) and for `uvicorn --factory`.

    A thread beside it gives cycles whose driver died a new one.
    """
    from mgral_service.cluster.jobs import RayJobLauncher
    from mgral_service.cluster.serving import ServeRanker
    from mgral_service.datasets.answers import coco_of, read_answers
    from mgral_service.gateway.app import GatewayPorts, create_app
    from mgral_service.gateway.supervision import supervise

    settings = from_environment()
    records = stores(settings, GATEWAY_PATIENCE_S)
    launcher = RayJobLauncher(settings.jobs_url, settings.driver_gpus)

    def register(spec: DatasetSpec) -> tuple[DatasetRecord, DatasetImages]:
        dataset = ingest(settings, spec)
        return dataset.record, dataset.images

    ports = GatewayPorts(
        stores=records,
        launcher=launcher,
        selector=StoredSelector(records, ServeRanker()),
        ingest=register,
        read_answers=read_answers,
        export_coco=coco_of,
        check=check,
        clock=time.time,
        new_id=lambda: "cyc_" + secrets.token_hex(10),
        token=settings.bearer,
        checks={"cluster": launcher.ping},
    )
    threading.Thread(target=supervise, args=(ports, threading.Event()), daemon=True).start()
    return create_app(ports)


def serve_application(args: dict[str, str]) -> serve.Application:
    """What `import_path` of the Serve config names; the config sets replicas and resources."""
    from mgral_service.cluster.serving import application

    return application(gateway_app, load_ranker, probe_agent)

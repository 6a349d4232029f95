"""A pool as Ray Data, image by image from URIs: what a detector sees in it goes to Parquet files,
and a policy scores what lies there.

What looks and what scores comes as a factory, so that no actor of this module knows their library.
An image that cannot be read or decoded is refused with its URI, and nothing else is lost.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import ray.data
from pyarrow import fs, parquet

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Detections, PoolObservation
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.features import detection_state
from mgral_service.domain.records import MOST_FILE_BYTES
from mgral_service.domain.specs import AgentState

logging.getLogger("ray.data").setLevel(logging.WARNING)

THREADS = 8  # of a task that reads, and of an actor that decodes
_READING_CPUS = 0.25  # of a task that mostly waits for a store
_SEEN = pa.schema(
    [
        ("position", pa.int64()),
        ("id", pa.string()),
        ("uri", pa.string()),
        ("cause", pa.string()),  # why it was refused; null: it was not
        ("embedding", pa.list_(pa.float32())),
        ("found", pa.list_(pa.float32())),  # features.detection_state
        ("boxes", pa.list_(pa.float64())),
        ("labels", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float64())),
        ("probs", pa.list_(pa.float64())),
    ]
)
_STATES = {"embedding": ["embedding"], "full": ["embedding", "found"]}  # AgentSpec.state
_FINDINGS = ("boxes", "labels", "scores", "probs")

Part = TypeVar("Part")


class Observer(Protocol):
    """A detector inside an actor."""

    def decode(self, data: bytes, uri: str) -> Any:
        """An image file's content in the form that `observe` takes; InvalidInput if it is none."""
        ...

    def observe(self, ids: Sequence[str], images: Sequence[Any]) -> PoolObservation: ...


Scorer = Callable[[FloatArray], FloatArray]
"""States [K, S] as observed (features.agent_state) -> scores [K]."""


@dataclass(frozen=True, slots=True)
class Actors:
    """How many of them, and each one's share of the machines."""

    count: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def options(self) -> dict[str, Any]:
        compute = ray.data.ActorPoolStrategy(size=self.count)
        return {"compute": compute, "num_cpus": self.cpus, "num_gpus": self.gpus}


@dataclass(frozen=True, slots=True)
class Refused:
    """An image that is in no file of the observation."""

    id: str
    cause: str


def observe_pool(
    images: Sequence[tuple[str, str]],
    factory: Callable[[], Observer],
    folder: str,
    actors: Actors,
    batch: int = 32,
) -> tuple[Refused, ...]:
    """Look at the (id, URI) of each image, `batch` at a time, and write what was seen to Parquet
    files in `folder`, an absolute path or a URI; answers with the images refused, in their order.

    What an interrupted call saw there, or one of the list's beginning, is not looked at again. A
    URI is what pyarrow opens: file://, s3://, gs://, hdfs://, or an absolute path. InvalidInput if
    the folder holds something else, or a cluster that cannot grow has no CPU beside the actors'.
    """
    store, path = place_of(folder)
    have = _looked_at(folder)
    names = dict(enumerate(name for name, _ in images))
    if any(names.get(at) != name for at, name in have.items()):
        raise InvalidInput(folder, "holds what was seen of another list: give an empty folder")
    rows = [
        {"position": at, "id": name, "uri": uri}
        for at, (name, uri) in enumerate(images)
        if at not in have
    ]
    if not rows:
        return refused(folder) if images else ()
    _require_room(actors)
    read = ray.data.from_items(rows).map_batches(
        _read, batch_size=batch, batch_format="pyarrow", num_cpus=_READING_CPUS
    )
    seen = read.map_batches(
        _Look,
        fn_constructor_args=(factory,),
        batch_size=batch,
        batch_format="pyarrow",
        **actors.options,
    )
    seen.write_parquet(path, filesystem=store)
    return refused(folder)


def refused(folder: str) -> tuple[Refused, ...]:
    """The images of an observation that could not be looked at."""
    lost = _table(folder, ["position", "id", "cause"], pc.field("cause").is_valid())
    return tuple(Refused(row["id"], row["cause"]) for row in lost.to_pylist())


def _looked_at(folder: str) -> dict[int, str]:
    """Ids by position of all images looked at, refused ones included. InvalidInput for a file that
    is no part of an observation, or only a beginning of one.
    """
    store, path = place_of(folder)
    found: dict[int, str] = {}
    for one in store.get_file_info(fs.FileSelector(path, allow_not_found=True)):
        try:
            rows = parquet.read_table(one.path, columns=["position", "id"], filesystem=store)
            places, names = (rows[name].to_pylist() for name in ("position", "id"))
        except (pa.ArrowInvalid, KeyError, OSError) as error:
            raise InvalidInput(
                one.path, f"is no file of an observation ({error}): delete it, and go on"
            ) from None
        found |= dict(zip(places, names, strict=True))
    return found


def _require_room(actors: Actors) -> None:
    """InvalidInput where the actors fill a cluster of this machine alone: reading and writing would
    wait for ever. One that RAY_ADDRESS names may grow.
    """
    if "RAY_ADDRESS" in os.environ:
        return
    have = ray.cluster_resources().get("CPU", 0.0)
    if actors.count * actors.cpus + 1 > have:
        raise InvalidInput(
            "actors",
            f"{actors.count} leave no CPU of the cluster's {have:g} to read and write with: ask "
            "for fewer, or name a larger cluster by RAY_ADDRESS",
        )


def observation_in(folder: str) -> PoolObservation:
    """All that was seen, in the order given, in this process's memory. Embeddings were kept in
    single precision.
    """
    seen = _table(folder, _SEEN.names, pc.field("cause").is_null())
    ids = tuple(seen["id"].to_pylist())
    image = np.repeat(np.arange(len(ids)), pc.list_value_length(seen["scores"]).to_numpy())
    flat = {name: pc.list_flatten(seen[name]).to_numpy() for name in _FINDINGS}
    probs = flat["probs"].reshape(len(image), -1) if len(image) else np.zeros((0, 0))
    boxes = flat["boxes"].reshape(-1, 4)
    found = Detections(ids, image, boxes, flat["labels"], flat["scores"], probs)
    return PoolObservation(ids, _matrix(seen["embedding"]), found)


def summarise_pool(
    folder: str, state: AgentState, summarise: Callable[[FloatArray], Part], batch: int = 4096
) -> Iterator[Part]:
    """`summarise` of the states [K, S], K <= batch, in every part of an observation."""

    def told(part: pa.Table) -> dict[str, Any]:
        seen = part.drop_null()
        return {"part": [summarise(_states(seen, state))] if len(seen) else []}

    parts = _read_parquet(folder, _STATES[state]).map_batches(
        told, batch_size=batch, batch_format="pyarrow"
    )
    for row in parts.iter_rows():
        yield row["part"]


def score_pool(
    folder: str, state: AgentState, factory: Callable[[], Scorer], chunk: int, actors: Actors
) -> Iterator[tuple[IntArray, FloatArray]]:
    """(positions, scores) of the images in an observation, chunk by chunk, in any order of chunks.

    A chunk is `chunk` images that follow one another, without those refused: whole lanes of a walk,
    so that scores are those of a walk over all. Positions are those in the list given to
    `observe_pool`.
    """
    lost = _table(folder, ["position"], pc.field("cause").is_valid())["position"].to_numpy()

    def number(part: pa.Table) -> pa.Table:
        seen = part.drop_null()
        at = seen["position"].to_numpy()
        return seen.append_column("chunk", pa.array((at - np.searchsorted(lost, at)) // chunk))

    scored = (
        _read_parquet(folder, ["position", *_STATES[state]])
        .map_batches(number, batch_format="pyarrow")
        .groupby("chunk")
        .map_groups(
            _Score, fn_constructor_args=(state, factory), batch_format="pyarrow", **actors.options
        )
    )
    for part in scored.iter_batches(batch_size=None, batch_format="numpy"):
        yield part["position"], part["score"]


def place_of(uri: str) -> tuple[fs.FileSystem, str]:
    """The file system and the path in it; one client a store, not one a file."""
    parts = urlsplit(uri)
    if not parts.scheme or parts.scheme == "file":
        found, path = fs.FileSystem.from_uri(uri)
        return found, path
    store = _store(f"{parts.scheme}://{parts.netloc}", parts.query)
    inner = unquote(parts.path)
    if parts.scheme in ("hdfs", "viewfs"):
        return store, inner
    return store, parts.netloc.rpartition("@")[2] + inner


@lru_cache
def _store(root: str, query: str) -> fs.FileSystem:
    found, _ = fs.FileSystem.from_uri(f"{root}/?{query}" if query else f"{root}/")
    return found


# --- inside tasks and actors --------------------------------------------------------------------


def _read(batch: pa.Table) -> pa.Table:
    """Adds the files' contents, or why there is none."""
    with ThreadPoolExecutor(THREADS) as threads:
        contents = list(threads.map(_content, batch["uri"].to_pylist()))
    data, causes = zip(*contents, strict=True)
    return batch.append_column("data", pa.array(data, pa.large_binary())).append_column(
        "cause", pa.array(causes, pa.string())
    )


def _content(uri: str) -> tuple[bytes | None, str | None]:
    try:
        store, path = place_of(uri)
        with store.open_input_file(path) as file:
            if file.size() > MOST_FILE_BYTES:
                return None, f"{uri}: is larger than {MOST_FILE_BYTES // 1_000_000} MB"
            return file.read(), None
    except (OSError, ValueError) as error:  # pyarrow's own are of these
        return None, f"{uri}: cannot be read: {error}"


class _Look:
    """Rows of images -> rows of what was seen in them."""

    def __init__(self, factory: Callable[[], Observer]) -> None:
        self._observer = factory()
        self._threads = ThreadPoolExecutor(THREADS)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        decoded = list(self._threads.map(self._decode, rows))
        good = [at for at, (_, cause) in enumerate(decoded) if cause is None]
        names = [rows[at]["id"] for at in good]
        found = _rows_of(self._observer.observe(names, [decoded[at][0] for at in good]))
        seen = dict(zip(good, found, strict=True))
        told = [
            {**{key: row[key] for key in ("position", "id", "uri")}, "cause": decoded[at][1]}
            | seen.get(at, {})
            for at, row in enumerate(rows)
        ]
        return pa.Table.from_pylist(told, _SEEN)

    def _decode(self, row: dict[str, Any]) -> tuple[Any, str | None]:
        if row["cause"] is not None:
            return None, row["cause"]
        try:
            return self._observer.decode(row["data"], row["uri"]), None
        except InvalidInput as error:
            return None, str(error)


class _Score:
    """A chunk's rows -> positions and scores."""

    def __init__(self, state: AgentState, factory: Callable[[], Scorer]) -> None:
        self._state, self._score = state, factory()

    def __call__(self, chunk: pa.Table) -> dict[str, Any]:
        ordered = chunk.sort_by("position")
        scores = self._score(_states(ordered, self._state))
        return {"position": ordered["position"].to_numpy(), "score": scores}


# --- rows and arrays ----------------------------------------------------------------------------


def _rows_of(observation: PoolObservation) -> list[dict[str, Any]]:
    found = observation.detections
    first = np.searchsorted(found.image, np.arange(len(found.ids) + 1))
    told = detection_state(observation, found.probs.shape[1] - 1)
    return [
        {"embedding": observation.embeddings[at].astype(np.float32)}
        | {"found": told[at].astype(np.float32)}
        | {name: getattr(found, name)[first[at] : first[at + 1]].ravel() for name in _FINDINGS}
        for at in range(len(found.ids))
    ]


def _states(rows: pa.Table, state: AgentState) -> FloatArray:
    return np.concatenate([_matrix(rows[name]) for name in _STATES[state]], axis=1)


def _matrix(lists: pa.ChunkedArray) -> FloatArray:
    """[K, D] of K equally long lists."""
    values = np.asarray(pc.list_flatten(lists), dtype=np.float64)
    return values.reshape(len(lists), -1) if len(lists) else np.zeros((0, 0))


def _read_parquet(folder: str, columns: list[str]) -> ray.data.Dataset:
    store, path = place_of(folder)
    return ray.data.read_parquet(path, filesystem=store).select_columns(columns)


def _table(folder: str, columns: list[str], keep: pc.Expression) -> pa.Table:
    """Those rows, by position."""
    store, path = place_of(folder)
    rows = parquet.read_table(path, columns=columns, filesystem=store, filters=keep)
    return rows.sort_by("position")

"""A pool as Ray Data, image by image from URIs: a detector's predictions go to Parquet files, and a
policy scores what lies there.

Detector and policy come as factories, so that no actor of this module knows their library. An image
that cannot be read or decoded is refused with its URI, and nothing else is lost.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.compute as pc  # type: ignore[import-untyped]
import ray.data
from pyarrow import fs, parquet

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import PoolPredictions
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.records import MOST_FILE_BYTES
from mgral_service.domain.specs import AgentState
from mgral_service.domain.value.features import agent_state

logging.getLogger("ray.data").setLevel(logging.WARNING)

THREADS = 8  # of a task that reads, and of an actor that decodes
_READING_CPUS = 0.25  # of a task that mostly waits for a store
_SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("id", pa.string()),
        ("uri", pa.string()),
        ("cause", pa.string()),  # why the image was refused; null: it was not
        ("embedding", pa.list_(pa.float32())),
        ("state", pa.list_(pa.float32())),  # features.agent_state but for the embedding
        ("boxes", pa.list_(pa.float64())),
        ("labels", pa.list_(pa.int64())),
        ("scores", pa.list_(pa.float64())),
        ("probs", pa.list_(pa.float64())),
    ]
)
_STATES = {"embedding": ["embedding"], "full": ["embedding", "state"]}  # agent.advanced.state
_DETECTIONS = ("boxes", "labels", "scores", "probs")

Part = TypeVar("Part")


class Predictor(Protocol):
    """A detector inside an actor."""

    def decode(self, data: bytes, uri: str) -> Any:
        """An image file's content in the form that `predict` takes; InvalidInput if it is none."""
        ...

    def predict(self, ids: Sequence[str], images: Sequence[Any]) -> PoolPredictions: ...


Scorer = Callable[[FloatArray], FloatArray]
"""States [K, S] as predicted (features.agent_state) -> scores [K]."""


@dataclass(frozen=True, slots=True)
class Actors:
    """How many, and the share of the machines of each."""

    count: int = 1
    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def options(self) -> dict[str, Any]:
        compute = ray.data.ActorPoolStrategy(size=self.count)
        return {"compute": compute, "num_cpus": self.cpus, "num_gpus": self.gpus}


@dataclass(frozen=True, slots=True)
class Refused:
    """An image that is in no file of the predictions."""

    id: str
    cause: str


def predict_pool(
    images: Sequence[tuple[str, str]],
    factory: Callable[[], Predictor],
    folder: str,
    actors: Actors,
    batch: int = 32,
) -> tuple[Refused, ...]:
    """Predict the (id, URI) of each image, `batch` at a time, into Parquet files in `folder`, an
    absolute path or a URI; returns the images refused, in their order.

    Images that an interrupted call predicted there, or a call with the list's beginning, are not
    predicted again. A URI is what pyarrow opens: file://, s3://, gs://, hdfs://, or an absolute
    path. InvalidInput if the folder holds something else, or a cluster that cannot grow has no CPU
    beside the actors'.
    """
    store, path = place_of(folder)
    done = _predicted(folder)
    ids = dict(enumerate(image_id for image_id, _ in images))
    if any(ids.get(position) != image_id for position, image_id in done.items()):
        raise InvalidInput(folder, "holds predictions of another list: give an empty folder")
    rows = [
        {"position": position, "id": image_id, "uri": uri}
        for position, (image_id, uri) in enumerate(images)
        if position not in done
    ]
    if not rows:
        return refused(folder) if images else ()
    _require_room(actors)
    read = ray.data.from_items(rows).map_batches(
        _read, batch_size=batch, batch_format="pyarrow", num_cpus=_READING_CPUS
    )
    predicted = read.map_batches(
        _Predict,
        fn_constructor_args=(factory,),
        batch_size=batch,
        batch_format="pyarrow",
        **actors.options,
    )
    predicted.write_parquet(path, filesystem=store)
    return refused(folder)


def refused(folder: str) -> tuple[Refused, ...]:
    """The images in `folder` that could not be predicted."""
    rows = _table(folder, ["position", "id", "cause"], pc.field("cause").is_valid())
    return tuple(Refused(row["id"], row["cause"]) for row in rows.to_pylist())


def _predicted(folder: str) -> dict[int, str]:
    """Ids by position of all images in `folder`, refused ones included. InvalidInput for a file
    that is no part of predictions, or only a beginning of one.
    """
    store, path = place_of(folder)
    ids: dict[int, str] = {}
    for file in store.get_file_info(fs.FileSelector(path, allow_not_found=True)):
        try:
            rows = parquet.read_table(file.path, columns=["position", "id"], filesystem=store)
            columns = [rows[name].to_pylist() for name in ("position", "id")]
        except (pa.ArrowInvalid, KeyError, OSError) as error:
            raise InvalidInput(
                file.path, f"is no file of predictions ({error}): delete it, and go on"
            ) from None
        ids |= dict(zip(*columns, strict=True))
    return ids


def _require_room(actors: Actors) -> None:
    """InvalidInput where the actors fill a cluster of this machine alone: reading and writing would
    wait for ever. One that RAY_ADDRESS names may grow.
    """
    if "RAY_ADDRESS" in os.environ:
        return
    cpus = ray.cluster_resources().get("CPU", 0.0)
    if actors.count * actors.cpus + 1 > cpus:
        raise InvalidInput(
            "actors",
            f"{actors.count} leave no CPU of the cluster's {cpus:g} to read and write with: ask "
            "for fewer, or name a larger cluster by RAY_ADDRESS",
        )


def summarise_pool(
    folder: str, state: AgentState, summarise: Callable[[FloatArray], Part], batch: int = 4096
) -> Iterator[Part]:
    """`summarise` of the states [K, S], K <= batch, in every part of predictions."""

    def summarised(part: pa.Table) -> dict[str, Any]:
        rows = part.drop_null()
        return {"part": [summarise(_states(rows, state))] if len(rows) else []}

    parts = _read_parquet(folder, _STATES[state]).map_batches(
        summarised, batch_size=batch, batch_format="pyarrow"
    )
    for row in parts.iter_rows():
        yield row["part"]


def score_pool(
    folder: str, state: AgentState, factory: Callable[[], Scorer], chunk: int, actors: Actors
) -> Iterator[tuple[IntArray, FloatArray]]:
    """(positions, scores) of the images in predictions, chunk by chunk, in any order of chunks.

    A chunk is `chunk` images that follow one another, without those refused: whole lanes of a walk,
    so that scores are those of a walk over all. Positions are those in the list given to
    `predict_pool`.
    """
    gaps = _table(folder, ["position"], pc.field("cause").is_valid())["position"].to_numpy()

    def number(part: pa.Table) -> pa.Table:
        rows = part.drop_null()
        positions = rows["position"].to_numpy()
        ranks = positions - np.searchsorted(gaps, positions)
        return rows.append_column("chunk", pa.array(ranks // chunk))

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
        local, path = fs.FileSystem.from_uri(uri)
        return local, path
    store = _store(f"{parts.scheme}://{parts.netloc}", parts.query)
    inner = unquote(parts.path)
    if parts.scheme in ("hdfs", "viewfs"):
        return store, inner
    return store, parts.netloc.rpartition("@")[2] + inner


@lru_cache
def _store(root: str, query: str) -> fs.FileSystem:
    store, _ = fs.FileSystem.from_uri(f"{root}/?{query}" if query else f"{root}/")
    return store


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


class _Predict:
    """Rows of images -> rows of predictions."""

    def __init__(self, factory: Callable[[], Predictor]) -> None:
        self._predictor = factory()
        self._threads = ThreadPoolExecutor(THREADS)

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = batch.to_pylist()
        decoded = list(self._threads.map(self._decode, rows))
        good = [row["id"] for row, (_, cause) in zip(rows, decoded, strict=True) if cause is None]
        images = [image for image, cause in decoded if cause is None]
        predicted = iter(_rows_of(self._predictor.predict(good, images)))
        return pa.Table.from_pylist(
            [
                {**{key: row[key] for key in ("position", "id", "uri")}, "cause": cause}
                | (next(predicted) if cause is None else {})
                for row, (_, cause) in zip(rows, decoded, strict=True)
            ],
            _SCHEMA,
        )

    def _decode(self, row: dict[str, Any]) -> tuple[Any, str | None]:
        if row["cause"] is not None:
            return None, row["cause"]
        try:
            return self._predictor.decode(row["data"], row["uri"]), None
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


def _rows_of(predictions: PoolPredictions) -> list[dict[str, Any]]:
    detections = predictions.detections
    bounds = np.searchsorted(detections.image, np.arange(len(detections.ids) + 1))
    whole = agent_state(predictions, detections.probs.shape[1] - 1, "full")
    states = whole[:, predictions.embeddings.shape[1] :]
    return [
        {"embedding": embedding.astype(np.float32), "state": state.astype(np.float32)}
        | {name: getattr(detections, name)[start:end].ravel() for name in _DETECTIONS}
        for embedding, state, (start, end) in zip(
            predictions.embeddings, states, pairwise(bounds), strict=True
        )
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

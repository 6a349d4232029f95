"""Arrays on disk: one safetensors file a name, written whole or not at all, damage noticed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from mgral_service import codec
from mgral_service.domain.boxes import Detections, PoolPredictions
from mgral_service.domain.errors import InvalidInput, Unavailable

Arrays = Mapping[str, np.ndarray[Any, Any]]

DIGEST = "sha256"  # in a file's metadata
_DETECTIONS = ("image", "boxes", "labels", "scores", "probs")
_COLUMN = "column."  # before the name of a column
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class FileArtifacts:
    """ArtifactStore in a folder: `folder/cycle/name.safetensors`, its digest in the metadata."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def put(self, cycle: str, name: str, arrays: Arrays, metadata: Mapping[str, str]) -> None:
        path = self.path(cycle, name)
        whole = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        body = save(whole, {**metadata, DIGEST: _digest(whole, metadata)})
        try:
            _write(path, body)
        except OSError as error:
            raise Unavailable("artifact store", f"{path.parent}: {error.strerror}") from error

    def get(self, cycle: str, name: str) -> tuple[Arrays, Mapping[str, str]] | None:
        try:
            body = self.path(cycle, name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Unavailable("artifact store", str(error.strerror)) from error
        try:
            arrays, metadata = load(body), _metadata_of(body)
        except (SafetensorError, ValueError, AttributeError):
            return None
        digest = metadata.pop(DIGEST, None)
        return (arrays, metadata) if digest == _digest(arrays, metadata) else None

    def path(self, cycle: str, name: str) -> Path:
        """Where an artifact lies; InvalidInput for names that would leave the folder."""
        for where, part in (("cycle", cycle), ("artifact", name)):
            if not _SAFE.fullmatch(part):
                raise InvalidInput(where, "use letters, digits, '_', '.' and '-'")
        return self.folder / cycle / f"{name}.safetensors"


def predictions_to_arrays(
    predictions: PoolPredictions,
) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    """Arrays and metadata that `arrays_to_predictions` turns back."""
    arrays = {name: getattr(predictions.detections, name) for name in _DETECTIONS}
    arrays |= {_COLUMN + name: column for name, column in predictions.columns.items()}
    return arrays | {"embeddings": predictions.embeddings}, {"ids": codec.encode(predictions.ids)}


def arrays_to_predictions(arrays: Arrays, metadata: Mapping[str, str]) -> PoolPredictions:
    ids = codec.decode(tuple[str, ...], metadata["ids"])
    detections = Detections(ids, *(arrays[name] for name in _DETECTIONS))
    columns = {
        name.removeprefix(_COLUMN): array
        for name, array in arrays.items()
        if name.startswith(_COLUMN)
    }
    return PoolPredictions(ids, arrays["embeddings"], detections, columns)


def _digest(arrays: Arrays, metadata: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes, bytes and metadata, in the order of their names."""
    total = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, array in sorted(arrays.items()):
        total.update(json.dumps([name, array.dtype.str, array.shape]).encode())
        total.update(np.ascontiguousarray(array).data if array.size else b"")
    return total.hexdigest()


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(prefix=path.name, suffix=".new", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _metadata_of(body: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: its header is JSON after eight bytes of length."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    return dict(header.get("__metadata__", {}))

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
from mgral_service.domain.boxes import Detections, PoolObservation
from mgral_service.domain.errors import InvalidInput, Unavailable

Arrays = Mapping[str, np.ndarray[Any, Any]]

DIGEST = "sha256"  # the word in a file's metadata
_COLUMNS = ("image", "boxes", "labels", "scores", "probs")  # of detections
_PARTS = {"detected": "", "unlearnt": "unlearnt."}  # detections of an observation: their prefix
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


class FileArtifacts:
    """ArtifactStore in a folder: `folder/cycle/name.safetensors`, its digest in the metadata."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def put(self, cycle: str, name: str, arrays: Arrays, words: Mapping[str, str]) -> None:
        path = self.path(cycle, name)
        whole = {key: np.ascontiguousarray(array) for key, array in arrays.items()}
        body = save(whole, {**words, DIGEST: _digest(whole, words)})
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
            arrays, words = load(body), _words_of(body)
        except (SafetensorError, ValueError, AttributeError):
            return None
        digest = words.pop(DIGEST, None)
        return (arrays, words) if digest == _digest(arrays, words) else None

    def path(self, cycle: str, name: str) -> Path:
        """Where an artifact lies; InvalidInput for names that would leave the folder."""
        for where, part in (("cycle", cycle), ("artifact", name)):
            if not _SAFE.fullmatch(part):
                raise InvalidInput(where, "use letters, digits, '_', '.' and '-'")
        return self.folder / cycle / f"{name}.safetensors"


def observation_to_arrays(
    observation: PoolObservation,
) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    """Arrays and words that `arrays_to_observation` turns back."""
    arrays = {"embeddings": observation.embeddings}
    arrays |= {f"column.{name}": column for name, column in observation.columns.items()}
    words = {"ids": json.dumps(observation.ids)}
    for part, found in (("detected", observation.detections), ("unlearnt", observation.unlearnt)):
        if found is not None:
            arrays |= {_PARTS[part] + name: getattr(found, name) for name in _COLUMNS}
            words[part] = json.dumps(found.ids)
    return arrays, words


def arrays_to_observation(arrays: Arrays, words: Mapping[str, str]) -> PoolObservation:
    columns = {
        name.removeprefix("column."): array
        for name, array in arrays.items()
        if name.startswith("column.")
    }
    found = {
        part: Detections(
            codec.build(tuple[str, ...], json.loads(words[part])),
            *(arrays[prefix + name] for name in _COLUMNS),
        )
        for part, prefix in _PARTS.items()
        if part in words
    }
    ids = codec.build(tuple[str, ...], json.loads(words["ids"]))
    return PoolObservation(
        ids, arrays["embeddings"], found["detected"], columns, found.get("unlearnt")
    )


def _digest(arrays: Arrays, words: Mapping[str, str]) -> str:
    """SHA-256 of names, types, shapes, bytes and words, in the order of their names."""
    total = hashlib.sha256(json.dumps(sorted(words.items())).encode())
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


def _words_of(body: bytes) -> dict[str, str]:
    """The metadata of a safetensors file: its header is JSON after eight bytes of length."""
    length = int.from_bytes(body[:8], "little")
    header = json.loads(body[8 : 8 + length])
    return dict(header.get("__metadata__", {}))

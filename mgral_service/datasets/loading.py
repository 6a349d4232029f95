"""Images decoded once to training size: in memory or, where they are too many, in a file.

The file is a plain `.npy` that later cycles map as well. While written, it ends in `.part`, and its
header counts the images on the disk: after an interruption the next driver continues there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
from PIL import Image

from mgral_service.datasets.images import content_id, decode_image, in_threads, read_image, squeezed
from mgral_service.domain.arrays import FloatArray, ImageArray, IntArray
from mgral_service.domain.boxes import Annotations, Detections
from mgral_service.domain.errors import DatasetRefused, InvalidInput, Unavailable
from mgral_service.domain.ports import Report
from mgral_service.domain.records import ImageRecord, Progress

SHARE = 0.25  # of the memory left; a driver holds the images once, Ray's object store once more
WAIT_S = 0.5  # between two checks of another driver's decoding
HEADER = 128  # bytes of numpy's in such a file: it leaves room for the first axis to grow
VERSION = 1  # of what `squeezed` makes of an image: another one, other files
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, eq=False)
class ImageStore:
    """Images at training size S, and the scale between their pixels and the originals'.

    ids       [N] image ids
    pixels    [N, 3, S, S] RGB uint8, the whole image squeezed to a square
    sizes     [N, 2] width and height of the originals, pixels
    file      from which the pixels are mapped, read-only; None: they are in memory. Another process
              gets the file's name in place of its pixels.
    position  id -> row
    """

    ids: tuple[str, ...]
    pixels: ImageArray
    sizes: FloatArray
    file: Path | None = None
    position: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "position", {name: row for row, name in enumerate(self.ids)})

    def __reduce__(self) -> tuple[Callable[..., ImageStore], tuple[Any, ...]]:
        if self.file is not None:
            return map_images, (self.ids, self.sizes, self.file)
        return ImageStore, (self.ids, self.pixels, self.sizes)

    @property
    def size(self) -> int:
        """S, pixels."""
        return int(self.pixels.shape[-1])

    def rows(self, ids: Iterable[str]) -> IntArray:
        """Their rows; KeyError for an id that is not here."""
        return np.array([self.position[image_id] for image_id in ids], dtype=np.int64)

    def scale(self, annotations: Annotations) -> Annotations:
        """The same boxes in training pixels."""
        factors = self._factors(annotations.ids, annotations.image)
        return replace(annotations, boxes=annotations.boxes * factors)

    def unscale(self, detections: Detections) -> Detections:
        """Detections in training pixels, in pixels of their original images."""
        factors = self._factors(detections.ids, detections.image)
        return replace(detections, boxes=detections.boxes / factors)

    def _factors(self, ids: Sequence[str], image: IntArray) -> FloatArray:
        """[K, 4] training pixels an original pixel, by row."""
        sizes = self.sizes[self.rows(ids)][image]
        factors: FloatArray = self.size / np.concatenate([sizes, sizes], axis=1)
        return factors


def load_images(
    root: str | Path,
    images: Sequence[ImageRecord],
    size: int,
    report: Report | None = None,
    folder: Path | None = None,
) -> ImageStore:
    """Decode `images` (files relative to `root`) to squares of `size` pixels.

    folder: where they go if memory is too small, or lie already; None: always in memory.

    DatasetRefused for an image that is gone or has changed, or a full disk; Unavailable for a
    `folder` that cannot be written.
    """
    root = Path(root).resolve()
    load = partial(_load, root, size)
    if folder is not None:
        ids, sizes = _ids_and_sizes(images)
        digest = hashlib.sha256(json.dumps([VERSION, size, ids]).encode()).hexdigest()
        file = folder.resolve() / f"{digest[:20]}.npy"
        if not file.exists() and not fit_in_memory(len(images) * 3 * size * size):
            _fill(file, load, images, size, report)
        if file.exists():
            return map_images(ids, sizes, file)
    chunks = in_threads(load, images, "LOADING", report)
    return _in_memory(images, size, chain.from_iterable(chunks))


class Squeezed:
    """Images at training size from `ingest`, so that they are decoded once: `add` is its sink."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._pixels: dict[str, ImageArray] | None = {}

    def add(self, image_id: str, image: Image.Image) -> None:
        pixels = self._pixels
        if pixels is None:
            return
        if fit_in_memory((len(pixels) + 1) * 3 * self._size**2):
            pixels[image_id] = squeezed(image, self._size)
        else:
            self._pixels = None

    def store(self, images: Sequence[ImageRecord]) -> ImageStore | None:
        """The store of these images; None if they do not fit in memory."""
        pixels, self._pixels = self._pixels, None
        if pixels is None:
            return None
        return _in_memory(images, self._size, (pixels.pop(image.id) for image in images))


def map_images(ids: tuple[str, ...], sizes: FloatArray, file: Path) -> ImageStore:
    """The store whose pixels a finished file holds."""
    return ImageStore(ids, np.load(file, mmap_mode="r"), sizes, file)


def fit_in_memory(count: int) -> bool:
    """Whether images of `count` bytes are kept in this machine's memory."""
    return count <= SHARE * memory_left()


def memory_left() -> int:
    """Free bytes of the machine or, if less, of its container (cgroup 2; file cache is free)."""
    left = psutil.virtual_memory().available
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        parts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or one without a limit
        return left
    cached = int(parts["active_file"]) + int(parts["inactive_file"])
    return min(left, limit - used + cached)


def _ids_and_sizes(images: Sequence[ImageRecord]) -> tuple[tuple[str, ...], FloatArray]:
    sizes = np.array([(image.width, image.height) for image in images], float).reshape(-1, 2)
    return tuple(image.id for image in images), sizes


def _in_memory(
    images: Sequence[ImageRecord], size: int, decoded: Iterable[ImageArray]
) -> ImageStore:
    ids, sizes = _ids_and_sizes(images)
    pixels = np.empty((len(ids), 3, size, size), dtype=np.uint8)
    for row, image in enumerate(decoded):
        pixels[row] = image
    return ImageStore(ids, pixels, sizes)


def _load(root: Path, size: int, image: ImageRecord) -> ImageArray:
    """[3, S, S]; DatasetRefused if the file is not the registered one."""
    try:
        data = read_image(root, root, image.file)
        if content_id(data) != image.id:
            raise InvalidInput(
                image.file,
                f"has changed since it was registered as {image.id}: restore it, or register the "
                "dataset by a new name",
            )
        return squeezed(decode_image(data, image.file), size)
    except InvalidInput as error:
        raise DatasetRefused(error.where, error.what) from None


# --- in a file ----------------------------------------------------------------------------------


def _fill(
    file: Path,
    load: Callable[[ImageRecord], ImageArray],
    images: Sequence[ImageRecord],
    size: int,
    report: Report | None,
) -> None:
    """Decode into `file`, or wait until another driver has. The lock ends with its process."""
    part = file.with_suffix(".part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("wb") as lock:
            while not _acquired(lock):
                if report is not None:
                    report(Progress("LOADING", _rows_in(part), len(images)))
                time.sleep(WAIT_S)
            if file.exists():
                return
            done = _rows_in(part)
            needed = (len(images) - done) * 3 * size * size
            free = shutil.disk_usage(file.parent).free
            if free < needed:
                raise DatasetRefused(
                    str(file.parent),
                    f"has {free:,} bytes free, and the decoded images need {needed:,}: make room, "
                    "or lower detector.size",
                )
            with part.open("r+b" if done else "wb") as out:
                for chunk in in_threads(load, images, "LOADING", report, done):
                    done = _append(out, done, np.stack(chunk))
            part.replace(file)
    except OSError as error:
        cause = f"{file.parent}: {error.strerror}"
        raise Unavailable("the folder of decoded images", cause) from error


def _acquired(lock: BinaryIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _rows_in(part: Path) -> int:
    """How many rows are on the disk."""
    try:
        return len(np.load(part, mmap_mode="r"))
    except (FileNotFoundError, EOFError, ValueError):  # it was left before its first header
        return 0


def _append(out: BinaryIO, done: int, chunk: ImageArray) -> int:
    """Write rows after the first `done`; once they are on the disk, count them. The new number."""
    out.seek(HEADER + done * chunk[0].nbytes)
    out.write(chunk.data)
    _flush(out)
    rows = done + len(chunk)
    header = {"descr": "|u1", "fortran_order": False, "shape": (rows, *chunk.shape[1:])}
    out.seek(0)
    np.lib.format.write_array_header_1_0(out, header)
    _flush(out)
    return rows


def _flush(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())

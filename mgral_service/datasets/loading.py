"""Images decoded once and kept at training size: in memory or, where they are many, in a file.

Such a file is a plain `.npy` that later cycles and drivers map as well. While it is written it is
called `.part`, and its header counts the images that have reached the disk: whoever comes after an
interruption goes on there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil
from PIL import Image

from mgral_service.datasets.images import content_id, decode_image, read_image, squeezed
from mgral_service.domain.arrays import FloatArray, ImageArray, IntArray
from mgral_service.domain.boxes import Annotations, Detections
from mgral_service.domain.errors import DatasetRefused, InvalidInput, Unavailable
from mgral_service.domain.ports import Report
from mgral_service.domain.records import ImageRecord, Progress

THREADS = 4
CHUNK = 64  # images decoded between two writes to a file
SHARE = 0.25  # of the memory left; a driver holds the images once, Ray's object store once more
WAIT_S = 0.5  # between two looks at another driver's decoding
VERSION = 1  # of what `squeezed` makes of an image: another one, other files
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, eq=False)
class ImageStore:
    """Images at training size S, and the way between their pixels and the originals'.

    ids       [N] image ids
    pixels    [N, 3, S, S] RGB uint8, the whole image squeezed to a square
    sizes     [N, 2] width and height of the originals, pixels
    position  id -> row
    file      from which the pixels are mapped, read-only; None: they are in memory. Another process
              gets the file's name in place of its pixels.
    """

    ids: tuple[str, ...]
    pixels: ImageArray
    sizes: FloatArray
    position: dict[str, int]
    file: Path | None = None

    def __reduce__(self) -> tuple[Callable[..., ImageStore], tuple[Any, ...]]:
        if self.file is not None:
            return map_images, (self.ids, self.sizes, self.file)
        return ImageStore, (self.ids, self.pixels, self.sizes, self.position)

    @property
    def size(self) -> int:
        """S, pixels."""
        return int(self.pixels.shape[-1])

    def rows(self, ids: Iterable[str]) -> IntArray:
        """Their rows; KeyError for an id that is not here."""
        return np.array([self.position[name] for name in ids], dtype=np.int64)

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

    folder: where a file keeps them if memory would not; None: always in memory. A file that is
    there already is used as it is, without a look at the originals.

    DatasetRefused names an image that is gone or whose content is not the registered one, or a disk
    without room; Unavailable, a folder that cannot be written.
    """
    root = Path(root).resolve()
    ids = tuple(image.id for image in images)
    sizes = np.array([(one.width, one.height) for one in images], dtype=np.float64).reshape(-1, 2)
    if folder is not None:
        file = folder.resolve() / f"{_digest(ids, size)}.npy"
        if not file.exists() and not fit_in_memory(len(images) * 3 * size * size):
            _fill(file, root, images, size, report)
        if file.exists():
            return map_images(ids, sizes, file)
    pixels = np.empty((len(images), 3, size, size), dtype=np.uint8)
    done = 0
    for chunk in _decoded(root, images, size, done, report):
        pixels[done : done + len(chunk)] = chunk
        done += len(chunk)
    return ImageStore(ids, pixels, sizes, _positions(ids))


def map_images(ids: tuple[str, ...], sizes: FloatArray, file: Path) -> ImageStore:
    """The store whose pixels a finished file holds."""
    return ImageStore(ids, np.load(file, mmap_mode="r"), sizes, _positions(ids), file)


def fit_in_memory(count: int) -> bool:
    """Whether images of `count` bytes are kept in this machine's memory."""
    return count <= SHARE * memory_left()


def memory_left() -> int:
    """Bytes that may still be taken: of the machine or, if that is less, of its container (cgroup
    2), whose cache of files counts as free.
    """
    left = psutil.virtual_memory().available
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        parts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or one without a limit
        return left
    cached = int(parts["active_file"]) + int(parts["inactive_file"])
    return min(left, limit - used + cached)


def _positions(ids: Sequence[str]) -> dict[str, int]:
    return {name: row for row, name in enumerate(ids)}


def _digest(ids: Sequence[str], size: int) -> str:
    return hashlib.sha256(json.dumps([VERSION, size, ids]).encode()).hexdigest()[:20]


def _decoded(
    root: Path, images: Sequence[ImageRecord], size: int, done: int, report: Report | None
) -> Iterator[ImageArray]:
    """The images after the first `done`, [K, 3, S, S] with K = CHUNK or, at last, fewer."""
    total = len(images)
    step = max(1, total // 100)

    def load(image: ImageRecord) -> ImageArray:
        return squeezed(_registered_image(root, image), size)

    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="load")
    try:
        for start in range(done, total, CHUNK):
            chunk = []
            for pixels in pool.map(load, images[start : start + CHUNK]):
                chunk.append(pixels)
                done += 1
                if report is not None and (done % step == 0 or done == total):
                    report(Progress("LOADING", done, total))
            yield np.stack(chunk)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# --- in a file ----------------------------------------------------------------------------------


def _fill(
    file: Path, root: Path, images: Sequence[ImageRecord], size: int, report: Report | None
) -> None:
    """Decode into `file`, or wait until another driver has."""
    part = file.with_suffix(".part")

    def wait() -> None:
        if report is not None:
            report(Progress("LOADING", _rows_in(part), len(images)))
        time.sleep(WAIT_S)

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with _alone(file.with_suffix(".lock"), wait):
            if file.exists():
                return
            done = _rows_in(part)
            _require_room(file.parent, (len(images) - done) * 3 * size * size)
            with part.open("r+b" if done else "wb") as out:
                for chunk in _decoded(root, images, size, done, report):
                    done = _append(out, done, chunk)
            part.replace(file)
    except OSError as error:
        cause = f"{file.parent}: {error.strerror}"
        raise Unavailable("the folder of decoded images", cause) from error


def _rows_in(part: Path) -> int:
    """How many rows are on the disk."""
    try:
        return len(np.load(part, mmap_mode="r"))
    except (FileNotFoundError, EOFError, ValueError):  # it was left before its first header
        return 0


def _append(out: BinaryIO, done: int, chunk: ImageArray) -> int:
    """Write rows after the first `done`, and only when they are on the disk count them: the new
    number of rows.
    """
    _write_header(out, done, chunk.shape[1:])
    out.seek(done * chunk[0].nbytes, os.SEEK_CUR)
    out.write(chunk.data)
    _flush(out)
    _write_header(out, done + len(chunk), chunk.shape[1:])
    _flush(out)
    return done + len(chunk)


def _write_header(out: BinaryIO, rows: int, shape: tuple[int, ...]) -> None:
    """Of equal length whatever the rows: numpy leaves room for the first axis to grow."""
    words = {"descr": "|u1", "fortran_order": False, "shape": (rows, *shape)}
    out.seek(0)
    np.lib.format.write_array_header_1_0(out, words)


def _flush(out: BinaryIO) -> None:
    out.flush()
    os.fsync(out.fileno())


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise DatasetRefused(
            str(folder),
            f"has {free:,} bytes free, and the decoded images need {needed:,}: make room, or lower "
            "detector.size",
        )


@contextmanager
def _alone(lock: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock, which ends with its process; wait() while another holds it."""
    with lock.open("wb") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                wait()
        yield


def _registered_image(root: Path, image: ImageRecord) -> Image.Image:
    try:
        data = read_image(root, root, image.file)
        if content_id(data) != image.id:
            raise InvalidInput(
                image.file,
                f"has changed since it was registered as {image.id}: restore it, or register the "
                "dataset by a new name",
            )
        return decode_image(data, image.file)
    except InvalidInput as error:
        raise DatasetRefused(error.where, error.what) from None

"""Image files from outside: read below the root only, decoded in full, named by their content.

Width and height are those of the stored pixels, as boxes are. EXIF orientation is ignored.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from mgral_service.domain.arrays import ImageArray
from mgral_service.domain.errors import DatasetRefused, InvalidInput
from mgral_service.domain.ports import Report
from mgral_service.domain.records import MOST_FILE_BYTES, ImageRecord, Progress

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
MOST_GREY = 2**16 - 1
THREADS = 4
CHUNK = 64  # images that `in_threads` has in memory

Item = TypeVar("Item")
Result = TypeVar("Result")

Sink = Callable[[str, Image.Image], None]
"""Takes an image's id and its decoded pixels, in any thread."""


def folder_below(root: Path, folder: str) -> Path:
    """The images folder, resolved; DatasetRefused unless it is one below `root` (resolved)."""
    path = root / folder
    if not os.path.isdir(path) or not path.resolve().is_relative_to(root):
        raise DatasetRefused(
            "images", f"there is no folder {folder!r} below the root, or it leads outside"
        )
    return path.resolve()


def read_image(root: Path, folder: Path, file: str) -> bytes:
    """Bytes of `root`/`file`; InvalidInput unless it is, links followed, a file below `folder`."""
    try:
        file.encode()
        path = (root / file).resolve()
        if not path.is_relative_to(folder):
            raise InvalidInput(file, "leads outside the images folder")
        if not path.is_file():
            raise InvalidInput(file, "no such image file")
        if path.stat().st_size > MOST_FILE_BYTES:
            raise InvalidInput(file, f"is larger than {MOST_FILE_BYTES // 1_000_000} MB")
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        raise InvalidInput(file, f"cannot be read: {error}") from None


def content_id(data: bytes) -> str:
    """`img_` and 20 hex digits of the SHA-256 of a file's bytes."""
    return "img_" + hashlib.sha256(data).hexdigest()[:20]


def decode_image(data: bytes, file: str) -> Image.Image:
    """The whole image or first frame; InvalidInput if damaged, too large or of another format."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError
        image.load()
    except UnidentifiedImageError:
        raise InvalidInput(
            file, f"is not an image of a known format ({', '.join(FORMATS)})"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidInput(
            file, f"has too many pixels ({MAX_PIXELS} allowed): possibly a decompression bomb"
        ) from None
    except Exception as error:  # a decoder may raise anything on hostile bytes
        raise InvalidInput(file, f"cannot be decoded: {error}") from None
    if image.mode == "F" or (image.mode == "I" and not _fits(image, MOST_GREY)):
        raise InvalidInput(file, "has pixels of more than 16 bits: save it with 8 or 16")
    return image


def inspect_image(root: Path, folder: Path, file: str, sink: Sink | None = None) -> ImageRecord:
    """Read, decode and identify one file; InvalidInput says what is wrong with it."""
    data = read_image(root, folder, file)
    image = decode_image(data, file)
    record = ImageRecord(content_id(data), file, *image.size)
    if sink is not None:
        sink(record.id, image)
    return record


def in_threads(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    phase: str,
    report: Report | None,
    done: int = 0,
) -> Iterator[list[Result]]:
    """Results of `work` after the first `done` items, CHUNK at a time, with about 100 reports."""
    step = max(1, len(items) // 100)
    with ThreadPoolExecutor(THREADS, thread_name_prefix="decode") as pool:
        for start in range(done, len(items), CHUNK):
            results = []
            for done, result in enumerate(pool.map(work, items[start : start + CHUNK]), start + 1):
                results.append(result)
                if report is not None and (done % step == 0 or done == len(items)):
                    report(Progress(phase, done, len(items)))
            yield results


def in_colour(image: Image.Image) -> Image.Image:
    """RGB without transparency; 16-bit grey, also in a 32-bit image, keeps its high byte."""
    if image.mode.startswith("I"):
        grey: np.ndarray[Any, Any] = np.asarray(image).astype(np.int64)
        if image.mode != "I" or not _fits(image, 255):
            grey >>= 8
        image = Image.fromarray(grey.astype(np.uint8))
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def squeezed(image: Image.Image, size: int) -> ImageArray:
    """[3, S, S] RGB: the whole image squeezed to `size` pixels, bilinear with antialiasing."""
    square = in_colour(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _fits(image: Image.Image, most: int) -> bool:
    """Whether all pixels of a grey image lie between 0 and `most`."""
    pixels = np.asarray(image)
    return bool(pixels.min() >= 0 and pixels.max() <= most)

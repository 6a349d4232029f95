"""Image files from outside: found below the root only, decoded in full, known by their content.

Width and height are those of the stored pixels. An EXIF orientation tag is applied nowhere: boxes
are drawn in stored pixels by the formats read here, and the detector sees stored pixels as well.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from mgral_service.domain.arrays import ImageArray
from mgral_service.domain.errors import DatasetRefused, InvalidInput
from mgral_service.domain.records import MOST_FILE_BYTES, ImageRecord

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 50_000_000
MOST_GREY = 2**16 - 1


def folder_below(root: Path, folder: str) -> Path:
    """The images folder, resolved; DatasetRefused unless it is one below `root` (resolved)."""
    try:
        path = (root / folder).resolve()
        found = path.is_dir()
    except (OSError, ValueError) as error:
        raise DatasetRefused("images", f"cannot be read: {error}") from None
    if not path.is_relative_to(root):
        raise DatasetRefused("images", f"{folder!r} leads outside the root")
    if not found:
        raise DatasetRefused("images", f"there is no folder {folder!r} below the root")
    return path


def read_image(root: Path, folder: Path, file: str) -> bytes:
    """The bytes of `file` (relative to `root`); InvalidInput unless it is a plain file below
    `folder`, links followed.
    """
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
    """The image, decoded to its end (its first frame if it has several); InvalidInput if it is
    truncated, too large, of another format or no image at all.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        width, height = image.size
        if width * height <= MAX_PIXELS:
            image.load()
    except UnidentifiedImageError:
        known = ", ".join(FORMATS)
        raise InvalidInput(file, f"is not an image of a known format ({known})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidInput(file, _too_many("more than can be decoded")) from None
    except Exception as error:  # a decoder may raise anything on hostile bytes
        raise InvalidInput(file, f"cannot be decoded: {error}") from None
    if width * height > MAX_PIXELS:
        raise InvalidInput(file, _too_many(f"{width} x {height}"))
    if image.mode == "F" or (image.mode == "I" and not _fits(image, MOST_GREY)):
        raise InvalidInput(file, "has pixels of more than 16 bits: save it with 8 or 16")
    return image


def inspect_image(root: Path, folder: Path, file: str) -> ImageRecord:
    """Read, decode and identify one file; InvalidInput says what is wrong with it."""
    data = read_image(root, folder, file)
    width, height = decode_image(data, file).size
    return ImageRecord(content_id(data), file, width, height)


def in_colour(image: Image.Image) -> Image.Image:
    """RGB of a decoded image: transparency is dropped, 16-bit grey keeps its high byte (in a 32-bit
    image where it has one).
    """
    if image.mode.startswith("I"):
        grey: np.ndarray[Any, Any] = np.asarray(image).astype(np.int64)
        if image.mode != "I" or not _fits(image, 255):
            grey >>= 8
        image = Image.fromarray(grey.astype(np.uint8))
    elif "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def squeezed(image: Image.Image, size: int) -> ImageArray:
    """[3, S, S] RGB: the whole image squeezed to a square of `size` pixels, bilinear with
    antialiasing.
    """
    square = in_colour(image).resize((size, size), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _fits(image: Image.Image, most: int) -> bool:
    """Whether all pixels of a grey image lie between 0 and `most`."""
    pixels = np.asarray(image)
    return bool(pixels.min() >= 0 and pixels.max() <= most)


def _too_many(pixels: str) -> str:
    return f"has too many pixels ({pixels}, {MAX_PIXELS} allowed): possibly a decompression bomb"

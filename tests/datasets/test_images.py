from __future__ import annotations

import hashlib
import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgral_service.datasets import images
from mgral_service.datasets.images import decode_image, folder_below, inspect_image, squeezed
from mgral_service.domain.errors import DatasetRefused, InvalidInput
from mgral_service.domain.records import ImageRecord
from tests.datasets.folders import picture


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises width x height pixels and holds none."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def inspect(root: Path, data: bytes, name: str = "a.jpg") -> ImageRecord:
    (root / "images").mkdir(exist_ok=True)
    (root / "images" / name).write_bytes(data)
    return inspect_image(root, root / "images", f"images/{name}")


def test_an_image_is_known_by_its_content(tmp_path: Path) -> None:
    data = picture(0)
    record = inspect(tmp_path, data, "a.png")
    assert record.id == "img_" + hashlib.sha256(data).hexdigest()[:20]
    assert (record.width, record.height) == (40, 30)
    assert inspect(tmp_path, data, "b.png").id == record.id
    assert inspect(tmp_path, picture(1), "c.png").id != record.id


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_five_formats_are_read(tmp_path: Path, kind: str) -> None:
    assert inspect(tmp_path, picture(0, 20, 10, kind)).width == 20


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_image_is_refused(tmp_path: Path, kind: str) -> None:
    data = picture(0, 60, 60, kind)
    with pytest.raises(InvalidInput, match=r"images/a\.jpg"):
        inspect(tmp_path, data[: len(data) // 2])


@pytest.mark.parametrize("data", [b"", b"these are words", b"GIF89a" + bytes(40)])
def test_what_is_no_image_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidInput, match="not an image of a known format"):
        inspect(tmp_path, data)


def test_a_gif_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="known format"):
        inspect(tmp_path, picture(0, kind="GIF"))


@pytest.mark.parametrize("sides", [(7100, 7100), (10_000, 10_000), (65_500, 65_500)])
def test_a_decompression_bomb_is_refused_unopened(tmp_path: Path, sides: tuple[int, int]) -> None:
    with pytest.raises(InvalidInput, match="too many pixels"):
        inspect(tmp_path, png_header(*sides))


def test_a_file_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MOST_FILE_BYTES", 100)
    with pytest.raises(InvalidInput, match="larger"):
        inspect(tmp_path, picture(0))


@pytest.mark.parametrize("file", ["images/../secret.png", "../secret.png", "/etc/hostname"])
def test_no_file_outside_the_folder_is_read(tmp_path: Path, file: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "secret.png").write_bytes(picture(0))
    with pytest.raises(InvalidInput, match="outside"):
        inspect_image(tmp_path, tmp_path / "images", file)


def test_a_link_that_leads_outside_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "images").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(picture(0))
    (root / "images" / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InvalidInput, match="outside"):
        inspect_image(root, root / "images", "images/a.png")
    (root / "linked").symlink_to(tmp_path)
    with pytest.raises(DatasetRefused, match="outside"):
        folder_below(root, "linked")


@pytest.mark.parametrize("name", ["gone.png", "nul\0.png", "x" * 300, "\ud800.png", "loop", "pipe"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "pipe")
    with pytest.raises(InvalidInput, match=r"no such|cannot be read"):
        inspect_image(tmp_path, folder, f"images/{name}")


def test_a_missing_images_folder_refuses_the_dataset(tmp_path: Path) -> None:
    with pytest.raises(DatasetRefused, match="no folder"):
        folder_below(tmp_path, "images")


def test_an_exif_orientation_turns_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (40, 30)), "JPEG", exif=exif)
    record = inspect(tmp_path, data)
    assert (record.width, record.height) == (40, 30)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    image = decode_image(encoded(Image.new(mode, (6, 3)), kind), "a")
    assert squeezed(image, 4).shape == (3, 4, 4)
    assert squeezed(image, 4).dtype == np.uint8


def test_a_palette_with_transparent_bytes_is_read() -> None:
    data = encoded(Image.new("P", (6, 3)), "PNG", transparency=b"\0\x80")
    assert squeezed(decode_image(data, "a"), 4).shape == (3, 4, 4)


def test_16_bit_grey_keeps_its_high_byte() -> None:
    grey = Image.fromarray(np.full((3, 6), 0x80FF, dtype=np.uint16))
    assert (squeezed(decode_image(encoded(grey, "PNG"), "a"), 4) == 0x80).all()


@pytest.mark.parametrize(("value", "expected"), [(200, 200), (0x80FF, 0x80)])
def test_32_bit_grey_of_8_or_16_bits_is_what_it_is(value: int, expected: int) -> None:
    grey = Image.fromarray(np.full((3, 6), value, dtype=np.int32))
    assert (squeezed(decode_image(encoded(grey, "TIFF"), "a"), 4) == expected).all()


@pytest.mark.parametrize("pixels", [np.float32(0.5), np.int32(2**20), np.int32(-1)])
def test_pixels_beyond_16_bits_are_refused(pixels: np.float32 | np.int32) -> None:
    image = Image.fromarray(np.full((3, 6), pixels))
    with pytest.raises(InvalidInput, match="more than 16 bits"):
        decode_image(encoded(image, "TIFF"), "a")


def test_squeezing_keeps_what_is_left_left() -> None:
    pixels = np.zeros((10, 40, 3), dtype=np.uint8)
    pixels[:, :20, 0] = 255
    square = squeezed(Image.fromarray(pixels), 20)
    assert square[0, 5, 2] == 255
    assert square[0, 5, 17] == 0
    assert not square[1:].any()


@pytest.mark.parametrize("sides", [(1, 1), (1, 20_000)])
def test_odd_shapes_are_images_too(tmp_path: Path, sides: tuple[int, int]) -> None:
    record = inspect(tmp_path, encoded(Image.new("RGB", sides), "PNG"))
    assert (record.width, record.height) == sides

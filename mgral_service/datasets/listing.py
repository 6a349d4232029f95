"""What a dataset's annotation files say, before any image is looked at."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mgral_service.datasets.ledger import Ledger
from mgral_service.domain.errors import DatasetRefused
from mgral_service.domain.specs import DatasetSpec

Role = Literal["labelled", "unlabelled", "scoring", "test"]
ROLES: tuple[Role, ...] = ("labelled", "unlabelled", "scoring", "test")


@dataclass(frozen=True, slots=True)
class ListedBox:
    """A box as written: any finite or infinite numbers. `record` names it in its file.

    box  x1, y1, x2, y2 in pixels of the original image
    """

    record: str
    label: str
    box: tuple[float, float, float, float]
    ignore: bool


@dataclass(frozen=True, slots=True)
class ListedImage:
    """An image as listed.

    file      path relative to the dataset's root, normalised; "" where answers name none
    size      width and height in pixels as stated, None if the file states none
    image_id  the id that this service gave the image, where the file carries it
    """

    record: str
    file: str
    size: tuple[int, int] | None
    boxes: tuple[ListedBox, ...]
    image_id: str | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of one role; `file` is the annotation file's name as the spec has it."""

    role: Role
    file: str
    images: tuple[ListedImage, ...]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All that a dataset's files list, in the order of ROLES; roles without a file are absent."""

    classes: tuple[str, ...]
    listings: tuple[Listing, ...]


Reader = Callable[[DatasetSpec, Ledger], Catalogue]
"""Reads a format; items it cannot use go to the ledger, DatasetRefused ends the reading."""


def named_files(spec: DatasetSpec) -> tuple[tuple[Role, str], ...]:
    """The roles the spec gives a file, with the file."""
    named = zip(ROLES, (spec.labelled, spec.unlabelled, spec.scoring, spec.test), strict=True)
    return tuple((role, file) for role, file in named if file is not None)


def root_of(spec: DatasetSpec) -> Path:
    """The dataset's folder, resolved; DatasetRefused if it is none."""
    try:
        root = Path(spec.root).resolve()
        found = root.is_dir()
    except (OSError, ValueError) as error:
        raise DatasetRefused("root", f"cannot be read: {error}") from None
    if not found:
        raise DatasetRefused("root", f"{spec.root!r} is not a folder on this machine")
    return root


def image_file(spec: DatasetSpec, name: str) -> str:
    """`name` below the images folder as a normalised path relative to the root."""
    return posixpath.normpath(posixpath.join(images_folder(spec), name))


def images_folder(spec: DatasetSpec) -> str:
    """The folder that holds the images; for VOC the default is the name VOC gives it."""
    if spec.format == "voc" and spec.images == "images":
        return "JPEGImages"
    return spec.images

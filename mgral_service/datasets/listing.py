"""What a dataset's annotation files say, before any image is looked at."""

from __future__ import annotations

import os
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
JOINED = "+"  # between folders or image sets that are read as one


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
    """`name` below the images folder as a normalised path relative to the root; of several folders
    the first that holds it counts.
    """
    folders = image_folders(spec)
    paths = [posixpath.normpath(posixpath.join(folder, name)) for folder in folders]
    if len(paths) == 1:
        return paths[0]
    return next((one for one in paths if os.path.exists(os.path.join(spec.root, one))), paths[0])


def image_folders(spec: DatasetSpec) -> tuple[str, ...]:
    """Every folder that holds images, relative to the root: those that `images` names, for VOC one
    in each year.
    """
    if spec.format != "voc":
        return tuple(spec.images.split(JOINED))
    years = [year for _, file in named_files(spec) for year, _ in image_sets(file)]
    return tuple(dict.fromkeys(voc_folder(spec, year) for year in years))


def voc_folder(spec: DatasetSpec, year: str) -> str:
    """The images of a year; by default in the folder that VOC names so."""
    return posixpath.join(year, "JPEGImages" if spec.images == "images" else spec.images)


def images_folder(spec: DatasetSpec) -> str:
    """The folder that holds all images: the root if they lie in several."""
    folders = image_folders(spec)
    return folders[0] if len(folders) == 1 else "."


def image_sets(file: str) -> tuple[tuple[str, str], ...]:
    """The year, "" for the root itself, and the name of each VOC image set in such as
    `VOC2007/trainval+VOC2012/trainval`.
    """
    cut = (part.rpartition("/") for part in file.split(JOINED))
    return tuple((year, name) for year, _, name in cut)

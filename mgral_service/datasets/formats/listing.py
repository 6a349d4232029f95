"""What the formats share: what annotation files list, before any image is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mgral_service.datasets.validation_log import ValidationLog
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


@dataclass(frozen=True, slots=True)
class Format:
    """An entry of FORMATS.

    read           reads the annotation files of a spec; an item that cannot be used goes to the
                   log, DatasetRefused ends the reading
    image_folders  every folder that holds images of a spec, relative to the root
    classes        number of classes to estimate costs with where the files are absent
    published      images of well-known sets, by the name a spec gives them
    """

    read: Callable[[DatasetSpec, ValidationLog], Catalogue]
    image_folders: Callable[[DatasetSpec], tuple[str, ...]]
    classes: int
    published: Mapping[str, int] = field(default_factory=dict)


def named_files(spec: DatasetSpec) -> tuple[tuple[Role, str], ...]:
    """The roles the spec gives a file, with the file."""
    files = zip(ROLES, (spec.labelled, spec.unlabelled, spec.scoring, spec.test), strict=True)
    return tuple((role, file) for role, file in files if file is not None)


def root_of(spec: DatasetSpec) -> Path:
    """The dataset's folder, resolved; DatasetRefused if it is none."""
    if not os.path.isdir(spec.root):
        raise DatasetRefused("root", f"{spec.root!r} is not a folder on this machine")
    return Path(spec.root).resolve()

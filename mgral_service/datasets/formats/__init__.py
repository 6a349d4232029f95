"""Annotation formats by name: add one = its file and one line here."""

from __future__ import annotations

from collections.abc import Mapping

from mgral_service.datasets.formats import coco, voc
from mgral_service.datasets.formats.listing import Format
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.specs import DatasetSpec

FORMATS: Mapping[str, Format] = {"coco": coco.FORMAT, "voc": voc.FORMAT}


def format_of(spec: DatasetSpec) -> Format:
    """InvalidInput for a format that FORMATS does not list."""
    if spec.format not in FORMATS:
        raise InvalidInput("format", f"{spec.format!r} is none of {', '.join(FORMATS)}")
    return FORMATS[spec.format]


def images_folder(spec: DatasetSpec) -> str:
    """The folder that holds all images: the root if they lie in several."""
    folders = format_of(spec).image_folders(spec)
    return folders[0] if len(folders) == 1 else "."

"""Pascal VOC: `Annotations/*.xml`, `ImageSets/Main/*.txt`, `JPEGImages`, in the root or by year.

A box is (xmin, ymin, xmax, ymax) as written: its width is xmax - xmin.
`difficult` objects are kept and ignored by metrics and training. Classes are in alphabetical order.
"""

from __future__ import annotations

import os
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from mgral_service.datasets.formats.listing import (
    JOINED,
    Catalogue,
    Format,
    ListedBox,
    ListedImage,
    Listing,
    Role,
    named_files,
    root_of,
)
from mgral_service.datasets.validation_log import ValidationLog
from mgral_service.domain.errors import DatasetRefused, InvalidInput
from mgral_service.domain.specs import DatasetSpec

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".webp", ".bmp", ".tif", ".tiff")


def read_voc(spec: DatasetSpec, log: ValidationLog) -> Catalogue:
    """The spec's image sets; DatasetRefused for a bad one, or objects in an `unlabelled` image."""
    root = root_of(spec)
    listings = []
    for role, file in named_files(spec):
        images = [
            _listed_image(root, year, spec, role, file, name, log)
            for year, image_set in image_sets(file)
            for name in _names(root, year, image_set)
        ]
        listings.append(Listing(role, file, tuple(filter(None, images))))
    labels = {box.label for listing in listings for image in listing.images for box in image.boxes}
    if not labels:
        raise DatasetRefused("Annotations", "name no object: there is no class to learn")
    return Catalogue(tuple(sorted(labels)), tuple(listings))


def _names(root: Path, year: str, image_set: str) -> list[str]:
    """The image names in an image set of a year, given with or without `.txt`."""
    where = posixpath.join(year, "ImageSets/Main", image_set.removesuffix(".txt") + ".txt")
    try:
        text = _read_below(root, where).decode()
    except FileNotFoundError:
        raise DatasetRefused(where, "no such image set") from None
    except InvalidInput as error:
        raise DatasetRefused(where, error.what) from None
    except UnicodeDecodeError:
        raise DatasetRefused(where, "is not UTF-8 text") from None
    lines = [line.split() for line in text.splitlines()]
    for number, fields in enumerate(lines, 1):
        if len(fields) > 1:
            raise DatasetRefused(
                where,
                f"line {number} holds more than a name: name a set such as train, not one of a "
                "single class",
            )
    return [fields[0] for fields in lines if fields]


def _listed_image(
    root: Path,
    year: str,
    spec: DatasetSpec,
    role: Role,
    listed_in: str,
    name: str,
    log: ValidationLog,
) -> ListedImage | None:
    """One image and its objects, or None with the reason in the log."""
    record = posixpath.join(year, f"{name}.xml")
    folder = _year_folder(spec, year)
    file = posixpath.normpath(posixpath.join(folder, _file_name(root / folder, name)))
    try:
        tree = _parsed(root / year, f"{name}.xml")
    except FileNotFoundError:
        if role == "unlabelled":
            return ListedImage(record, file, None, ())
        log.refuse_image(listed_in, record, "no such annotation file")
        return None
    except InvalidInput as error:
        log.refuse_image(listed_in, record, error.what)
        return None
    if role == "unlabelled":
        if tree.find("object") is not None:
            raise DatasetRefused(
                posixpath.join(year, "Annotations", f"{name}.xml"),
                f"annotates {name}, which {spec.unlabelled} calls unlabelled: take it out of one",
            )
        return ListedImage(record, file, _size(tree), ())
    boxes = []
    for index, element in enumerate(tree.findall("object")):
        try:
            boxes.append(_listed_box(element, f"{record} object[{index}]"))
        except InvalidInput as error:
            log.refuse_box(listed_in, error.where, error.what)
    return ListedImage(record, file, _size(tree), tuple(boxes))


def _parsed(root: Path, record: str) -> Element:
    """FileNotFoundError if there is none, InvalidInput if it is not an annotation."""
    data = _read_below(root / "Annotations", record)
    try:
        tree: Element = fromstring(data)
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise InvalidInput(record, f"is not plain XML: {error}") from None
    if tree.tag != "annotation":
        raise InvalidInput(record, f"holds <{tree.tag}>, not <annotation>")
    return tree


def _read_below(folder: Path, name: str) -> bytes:
    """FileNotFoundError if there is none, InvalidInput if it cannot be read or lies elsewhere."""
    try:
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise InvalidInput(name, "leads outside its folder")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise InvalidInput(name, f"cannot be read: {error}") from None


def _file_name(folder: Path, name: str) -> str:
    """The image of that name; `.jpg` if there is none, so that the missing file gets its name."""
    files = (name + ending for ending in ENDINGS)
    return next((file for file in files if os.path.exists(folder / file)), name + ".jpg")


def _listed_box(element: Element, record: str) -> ListedBox:
    label = (element.findtext("name") or "").strip()
    if not label:
        raise InvalidInput(record, "has no <name>")
    bounds = element.find("bndbox")
    if bounds is None:
        raise InvalidInput(record, "has no <bndbox>")
    x1, y1, x2, y2 = (_coordinate(bounds, tag, record) for tag in ("xmin", "ymin", "xmax", "ymax"))
    difficult = (element.findtext("difficult") or "0").strip() == "1"
    return ListedBox(record, label, (x1, y1, x2, y2), difficult)


def _coordinate(bounds: Element, tag: str, record: str) -> float:
    text = bounds.findtext(tag)
    if text is None:
        raise InvalidInput(record, f"its <bndbox> has no <{tag}>")
    try:
        return float(text)
    except ValueError:
        raise InvalidInput(record, f"<{tag}> must be a number, got {text!r}") from None


def _size(tree: Element) -> tuple[int, int] | None:
    """As stated; None if not stated, -1 for what is no whole number."""
    if tree.find("size") is None:
        return None
    width, height = (
        int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
        for text in ((tree.findtext(f"size/{tag}") or "").strip() for tag in ("width", "height"))
    )
    return width, height


def image_sets(file: str) -> tuple[tuple[str, str], ...]:
    """(year, set) of each in `VOC2007/trainval+VOC2012/trainval`; year "" is the root itself."""
    parts = (part.rpartition("/") for part in file.split(JOINED))
    return tuple((year, name) for year, _, name in parts)


def image_folders(spec: DatasetSpec) -> tuple[str, ...]:
    """One in each year."""
    years = [year for _, file in named_files(spec) for year, _ in image_sets(file)]
    return tuple(dict.fromkeys(_year_folder(spec, year) for year in years))


def _year_folder(spec: DatasetSpec, year: str) -> str:
    """The images of a year; by default in the folder that VOC names so."""
    return posixpath.join(year, "JPEGImages" if spec.images == "images" else spec.images)


FORMAT = Format(
    read=read_voc,
    image_folders=image_folders,
    classes=20,
    published={"VOC2007/trainval": 5_011, "VOC2012/trainval": 11_540, "VOC2007/test": 4_952},
)

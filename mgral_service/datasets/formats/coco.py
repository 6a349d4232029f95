"""COCO JSON (https://cocodataset.org/#format-data): `bbox` is x, y, width, height in pixels.

`info` and `licenses` may be missing. Metrics and training ignore a box with `iscrowd`.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from mgral_service.datasets.formats.listing import (
    JOINED,
    Catalogue,
    Format,
    ListedBox,
    ListedImage,
    Listing,
    named_files,
    root_of,
)
from mgral_service.datasets.validation_log import ValidationLog, printable, shown
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import DatasetRefused
from mgral_service.domain.records import ImageRecord
from mgral_service.domain.specs import DatasetSpec


def read_coco(spec: DatasetSpec, log: ValidationLog) -> Catalogue:
    """The files that the spec names, each below the root or given by an absolute path.

    Classes are ordered by category id. DatasetRefused if a file cannot be used, if the files'
    categories differ, or if `unlabelled` carries annotations.
    """
    root = root_of(spec)
    listings, category_sets = [], {}
    for role, file in named_files(spec):
        content = load_json(root, file)
        if role == "unlabelled" and content.get("annotations"):
            raise DatasetRefused(
                f"{file}: annotations", "must be empty: unlabelled images come without labels"
            )
        categories = {}
        if role != "unlabelled" or content.get("categories"):
            categories = category_sets[file] = categories_of(content, file)
        images = listed_images(content, file, categories, log, spec)
        listings.append(Listing(role, file, images))
    first = category_sets[spec.labelled]
    for file, categories in category_sets.items():
        if categories != first:
            odd = sorted(set(first.items()) ^ set(categories.items()))
            raise DatasetRefused(
                f"{file}: categories",
                f"differ from those of {spec.labelled} in {odd[:5]}: list the same ids and names "
                "in all files",
            )
    return Catalogue(tuple(first[number] for number in sorted(first)), tuple(listings))


def load_json(root: Path, file: str) -> Mapping[str, Any]:
    """The object in a JSON file; DatasetRefused names the file."""
    try:
        path = (root / file).resolve()
        if not Path(file).is_absolute() and not path.is_relative_to(root):
            raise DatasetRefused(file, "leads outside the root")
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError):
        raise DatasetRefused(file, "no such annotation file") from None
    except OSError as error:
        raise DatasetRefused(file, f"cannot be read: {error.strerror}") from None
    except RecursionError:
        raise DatasetRefused(file, "is nested too deeply to be COCO JSON") from None
    except ValueError as error:
        raise DatasetRefused(file, f"is not JSON: {printable(str(error))}") from None
    if not isinstance(content, dict):
        raise DatasetRefused(file, "must be a JSON object with images, annotations, categories")
    return content


def categories_of(content: Mapping[str, Any], file: str) -> dict[int, str]:
    """Category names by id; DatasetRefused if there are none or one is wrong or doubled."""
    names: dict[int, str] = {}
    for index, entry in enumerate(_entries(content, "categories", file)):
        where = f"{file}: categories[{index}]"
        number = entry.get("id") if isinstance(entry, dict) else None
        name = entry.get("name") if isinstance(entry, dict) else None
        if not _is_int(number) or not isinstance(name, str) or not name.strip():
            raise DatasetRefused(where, "needs a whole number as `id` and a text as `name`")
        if name != printable(name):
            raise DatasetRefused(where, f"the name {printable(name)!r} is too long or unprintable")
        if number in names or name in names.values():
            raise DatasetRefused(where, f"id {number} or name {name!r} occurs twice")
        names[number] = name
    if not names:
        raise DatasetRefused(f"{file}: categories", "lists no category")
    return names


def listed_images(
    content: Mapping[str, Any],
    file: str,
    categories: Mapping[int, str],
    log: ValidationLog,
    spec: DatasetSpec | None = None,
) -> tuple[ListedImage, ...]:
    """The images with their boxes; what cannot be used goes to the log.

    With `spec`, each image must name its file, which becomes a path relative to the root. Without
    (answers that come back), `file_name` is kept as written and may be missing.
    """
    by_key = _heads(content, file, log, spec)
    boxes = _boxes_by_image(content, file, categories, by_key.keys(), log)
    images: list[ListedImage] = []
    for key, same in by_key.items():
        own = tuple(boxes.get(key, ()))
        first, *others = same
        if len({(head.file, head.image_id) for head in same}) == 1:
            images.append(ListedImage(first.record, first.file, first.size, own, first.image_id))
        else:
            problem = f"image id {shown(key)} names several files: whose its boxes are is open"
            log.refuse_image(file, first.record, problem, len(own))
        for head in others:
            log.refuse_image(file, head.record, f"has the image id of {first.record}")
    return tuple(images)


def _heads(
    content: Mapping[str, Any], file: str, log: ValidationLog, spec: DatasetSpec | None
) -> dict[int | str, list[ListedImage]]:
    """The usable entries of `images` by their COCO id, without boxes."""
    heads: dict[int | str, list[ListedImage]] = {}
    for index, entry in enumerate(_entries(content, "images", file)):
        record = f"images[{index}]"
        if not isinstance(entry, dict) or not _is_key(entry.get("id")):
            log.refuse_image(file, record, "needs an `id`, a whole number or a text")
            continue
        key, name = entry["id"], entry.get("file_name")
        image_id = entry.get("image_id", key)
        image_id = image_id if isinstance(image_id, str) else None
        if not (isinstance(name, str) and name):
            if spec is not None or image_id is None:
                log.refuse_image(file, record, "needs a `file_name`")
                continue
            name = ""
        path = name if spec is None else image_file(spec, name)
        head = ListedImage(record, path, _stated_size(entry), (), image_id)
        heads.setdefault(key, []).append(head)
    return heads


def _stated_size(entry: Mapping[str, Any]) -> tuple[int, int] | None:
    """None if the entry states none; a value that is no whole number counts as -1."""
    if "width" not in entry and "height" not in entry:
        return None
    width, height = entry.get("width"), entry.get("height")
    return (width if _is_int(width) else -1, height if _is_int(height) else -1)


def _boxes_by_image(
    content: Mapping[str, Any],
    file: str,
    categories: Mapping[int, str],
    image_keys: Collection[int | str],
    log: ValidationLog,
) -> dict[int | str, list[ListedBox]]:
    if "annotations" not in content and not categories:
        return {}
    boxes: dict[int | str, list[ListedBox]] = {}
    ids: set[int | str] = set()
    for index, entry in enumerate(_entries(content, "annotations", file)):
        record = f"annotations[{index}]"
        fault = _fault(entry, categories, image_keys, ids)
        if fault is not None:
            log.refuse_box(file, record, fault)
            continue
        if "id" in entry:
            ids.add(entry["id"])
        x, y, width, height = (_number(value) for value in entry["bbox"])
        boxes.setdefault(entry["image_id"], []).append(
            ListedBox(
                record,
                categories[entry["category_id"]],
                (x, y, x + width, y + height),
                bool(entry.get("iscrowd", 0)),
            )
        )
    return boxes


def _fault(
    entry: Any,
    categories: Mapping[int, str],
    image_keys: Collection[int | str],
    ids: Collection[int | str],
) -> str | None:
    """Why an annotation cannot be read, or None."""
    if not isinstance(entry, dict):
        return "must be a JSON object"
    missing = [key for key in ("image_id", "category_id", "bbox") if key not in entry]
    if missing:
        return f"has no {', '.join(missing)}"
    if "id" in entry and not _is_key(entry["id"]):
        return "its `id` must be a whole number or a text"
    if "id" in entry and entry["id"] in ids:
        return f"annotation id {shown(entry['id'])} was used before"
    if not _is_key(entry["image_id"]) or entry["image_id"] not in image_keys:
        return f"no image has the id {shown(entry['image_id'])}"
    if not _is_int(entry["category_id"]) or entry["category_id"] not in categories:
        return f"unknown category {shown(entry['category_id'])}"
    bbox = entry["bbox"]
    if not isinstance(bbox, list) or len(bbox) != 4:
        return "`bbox` must hold x, y, width, height"
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in bbox):
        return f"`bbox` must hold four numbers, got [{', '.join(map(shown, bbox))}]"
    if "iscrowd" in entry and not isinstance(entry["iscrowd"], int):
        return "`iscrowd` must be 0 or 1"
    return None


def _entries(content: Mapping[str, Any], key: str, file: str) -> list[Any]:
    entries = content.get(key)
    if not isinstance(entries, list):
        raise DatasetRefused(f"{file}: {key}", "must be there and be a list")
    return entries


def _number(value: int | float) -> float:
    """Whole numbers too large for a float become infinite, and are refused as such later."""
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_key(value: object) -> TypeGuard[int | str]:
    return isinstance(value, str) or _is_int(value)


def image_file(spec: DatasetSpec, name: str) -> str:
    """Path of `name` relative to the root, normalised: in the first images folder that holds it."""
    paths = [
        posixpath.normpath(posixpath.join(folder, name)) for folder in FORMAT.image_folders(spec)
    ]
    if len(paths) == 1:
        return paths[0]
    return next((path for path in paths if os.path.exists(os.path.join(spec.root, path))), paths[0])


# --- writing ------------------------------------------------------------------------------------


def coco_json(
    classes: Sequence[str],
    images: Sequence[Mapping[str, Any]],
    annotations: Annotations,
    scores: FloatArray | None = None,
    decimals: int = 9,
) -> dict[str, Any]:
    """The `categories`, `images` and `annotations` of a COCO file; ids count from 1.

    images    [N] `image_entry`s, with further keys if wanted, in the order of `annotations.ids`
    scores    [K] of the boxes, where they are a detector's
    decimals  of the boxes' pixels
    """
    corners = annotations.boxes.round(decimals)
    sides = (corners[:, 2:] - corners[:, :2]).round(decimals)
    entries: list[dict[str, Any]] = [
        {
            "id": row + 1,
            "image_id": int(annotations.image[row]) + 1,
            "category_id": int(annotations.labels[row]) + 1,
            "bbox": [x, y, width, height],
            "area": round(width * height, decimals),
            "iscrowd": int(annotations.ignore[row]),
        }
        for row, (x, y, width, height) in enumerate(np.hstack([corners[:, :2], sides]).tolist())
    ]
    if scores is not None:
        for entry, score in zip(entries, scores.tolist(), strict=True):
            entry["score"] = score
    return {
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, 1)],
        "images": [{"id": number, **image} for number, image in enumerate(images, 1)],
        "annotations": entries,
    }


def image_entry(image: ImageRecord, folder: str) -> dict[str, Any]:
    """An entry of `images`. folder: that of the images, relative to the root as `image.file` is."""
    name = posixpath.relpath(image.file, folder)
    return {"file_name": name, "width": image.width, "height": image.height}


FORMAT = Format(
    read=read_coco,
    image_folders=lambda spec: tuple(spec.images.split(JOINED)),
    classes=80,
    published={
        "annotations/instances_train2017.json": 118_287,
        "annotations/instances_val2017.json": 5_000,
    },
)

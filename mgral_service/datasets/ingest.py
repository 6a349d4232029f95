"""From annotation files to a dataset: images decoded, roles kept apart, boxes checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from mgral_service.datasets.formats import format_of, images_folder
from mgral_service.datasets.formats.listing import (
    ROLES,
    Catalogue,
    ListedImage,
    Listing,
    Role,
    root_of,
)
from mgral_service.datasets.geometry import Box, fit_box
from mgral_service.datasets.images import Sink, folder_below, in_threads, inspect_image
from mgral_service.datasets.validation_log import ValidationLog
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import DatasetRefused, InvalidInput
from mgral_service.domain.ports import Report
from mgral_service.domain.records import DatasetImages, DatasetRecord, ImageRecord
from mgral_service.domain.specs import DatasetSpec

UNSCALED = (1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Ingested:
    """What a DatasetStore keeps, and the annotations of labelled, scoring and test images."""

    record: DatasetRecord
    images: DatasetImages
    annotations: Annotations


def ingest(
    spec: DatasetSpec,
    report: Report | None = None,
    created: float = 0.0,
    sink: Sink | None = None,
) -> Ingested:
    """Read a dataset, decode every image, check every box.

    created: seconds since the epoch; sink: takes the decoded images

    DatasetRefused if it cannot be used at all, or if two roles share an image by content; anything
    less is a finding in the record's report.
    """
    log = ValidationLog()
    catalogue = format_of(spec).read(spec, log)
    images = _accept(catalogue, _inspect_all(spec, catalogue, report, sink), log)
    truth = _annotate(catalogue, images, log)
    log.counts["accepted_images"] = len(images.images)
    log.counts["images_without_boxes"] = len(truth) - len(np.unique(truth.image))
    record = DatasetRecord(
        spec=spec,
        classes=catalogue.classes,
        labelled=len(images.labelled),
        unlabelled=len(images.unlabelled),
        scoring=len(images.scoring),
        test=len(images.test),
        report=log.report(),
        created=created,
    )
    return Ingested(record, images, truth)


def annotations_of(record: DatasetRecord, images: DatasetImages) -> Annotations:
    """The annotations that `ingest` gave, read again from the files without opening an image.

    DatasetRefused if the files no longer list the same images or classes.
    """
    log = ValidationLog()
    catalogue = format_of(record.spec).read(record.spec, log)
    truth = _annotate(catalogue, images, log)
    expected = {*images.labelled, *images.scoring, *images.test}
    if catalogue.classes != record.classes or set(truth.ids) != expected:
        raise DatasetRefused(
            record.spec.name,
            "its annotation files have changed since it was registered: register it by a new name",
        )
    return truth


def _annotate(catalogue: Catalogue, images: DatasetImages, log: ValidationLog) -> Annotations:
    """The checked boxes of the labelled, scoring and test images; other listed ones are skipped."""
    by_file = {image.file: image for image in images.images}
    matched = (
        (listing.file, image, by_file[image.file])
        for listing in catalogue.listings
        for image in listing.images
        if listing.role != "unlabelled" and image.file in by_file
    )
    return join_boxes(matched, catalogue.classes, log)


def join_boxes(
    matched: Iterable[tuple[str, ListedImage, ImageRecord]],
    classes: Sequence[str],
    log: ValidationLog,
) -> Annotations:
    """Checked boxes of (annotation file, listed image, record); a repeated record is skipped."""
    label_of = {name: label for label, name in enumerate(classes)}
    position: dict[str, int] = {}
    rows: list[tuple[int, Box, int, bool]] = []
    for file, image, record in matched:
        if record.id in position:
            continue
        position[record.id] = len(position)
        x, y = _scale(image, record) or UNSCALED
        for box in image.boxes:
            if box.label not in label_of:
                log.refuse_box(file, box.record, f"unknown category {box.label!r}")
                continue
            x1, y1, x2, y2 = box.box
            scaled = x1 * x, y1 * y, x2 * x, y2 * y
            fitted, problem = fit_box(scaled, record.width, record.height)
            if fitted is None:
                log.refuse_box(file, box.record, problem or "")
                continue
            if problem is None and (x, y) != UNSCALED:
                problem = "scaled to the file's size"
            if problem is not None:
                log.repair_box(file, box.record, problem)
            log.counts["accepted_boxes"] += 1
            rows.append((position[record.id], fitted, label_of[box.label], box.ignore))
    return Annotations(
        ids=tuple(position),
        image=np.array([row[0] for row in rows], dtype=np.int64),
        boxes=np.array([row[1] for row in rows], dtype=np.float64).reshape(-1, 4),
        labels=np.array([row[2] for row in rows], dtype=np.int64),
        ignore=np.array([row[3] for row in rows], dtype=np.bool_),
    )


def size_problem(image: ListedImage, record: ImageRecord) -> str | None:
    """Why the stated size cannot be of this file, scaled or not; None: it can, or has no boxes."""
    if not image.boxes or _scale(image, record) is not None:
        return None
    return f"{_sizes(image, record)}: give its boxes in pixels of the file as it is stored"


def _inspect_all(
    spec: DatasetSpec, catalogue: Catalogue, report: Report | None, sink: Sink | None
) -> dict[str, ImageRecord | InvalidInput]:
    """Every listed file once, decoded in a few threads: its record, or what is wrong with it."""
    root = root_of(spec)
    for name in format_of(spec).image_folders(spec):
        folder_below(root, name)
    folder = folder_below(root, images_folder(spec))
    files = [*{image.file: None for listing in catalogue.listings for image in listing.images}]

    def inspect(file: str) -> ImageRecord | InvalidInput:
        try:
            return inspect_image(root, folder, file, sink)
        except InvalidInput as error:
            return error

    chunks = in_threads(inspect, files, "INGESTING", report)
    return dict(zip(files, chain.from_iterable(chunks), strict=True))


def _accept(
    catalogue: Catalogue, outcomes: Mapping[str, ImageRecord | InvalidInput], log: ValidationLog
) -> DatasetImages:
    """Give each usable image one role; DatasetRefused for a shared image or a role without any."""
    images: list[ImageRecord] = []
    roles: dict[Role, list[str]] = {role: [] for role in ROLES}
    owner: dict[str, tuple[Listing, ListedImage]] = {}
    shared: list[str] = []
    for listing in catalogue.listings:
        for image in listing.images:
            outcome = outcomes[image.file]
            if isinstance(outcome, ImageRecord) and (misfit := size_problem(image, outcome)):
                outcome = InvalidInput(image.file, misfit)
            if isinstance(outcome, ImageRecord) and outcome.id not in owner:
                owner[outcome.id] = (listing, image)
                images.append(outcome)
                roles[listing.role].append(outcome.id)
                if image.size is not None and image.size != (outcome.width, outcome.height):
                    problem = f"{image.file}: {_sizes(image, outcome)}"
                    log.repair_image(listing.file, image.record, problem)
                continue
            if isinstance(outcome, InvalidInput):
                problem = outcome.what
            else:
                other, first = owner[outcome.id]
                if other.role != listing.role:
                    shared.append(f"{image.file} ({listing.file}) and {first.file} ({other.file})")
                problem = f"has the same content as {first.file} ({first.record})"
            problem = f"{image.file}: {problem}"
            log.refuse_image(listing.file, image.record, problem, len(image.boxes))
    if shared:
        examples = "; ".join(shared[:3]) + ("; ..." if len(shared) > 3 else "")
        raise DatasetRefused(
            "roles",
            f"{len(shared)} images are in two roles by content, take them out of one: {examples}",
        )
    for listing in catalogue.listings:
        if not roles[listing.role]:
            problems = [entry.problem for entry in log.findings if entry.file == listing.file]
            reason = "".join(f"; first reason: {problem}" for problem in problems[:1])
            cause = "has no usable image" if listing.images else "lists no image"
            what = f"{cause}, so there is no {listing.role} split{reason}"
            raise DatasetRefused(listing.file, what)
    return DatasetImages(tuple(images), **{role: tuple(ids) for role, ids in roles.items()})


def _sizes(image: ListedImage, record: ImageRecord) -> str:
    assert image.size is not None
    width, height = image.size
    return f"stated as {width} x {height}, is {record.width} x {record.height}"


def _scale(image: ListedImage, record: ImageRecord) -> tuple[float, float] | None:
    """Factors of boxes along x and y; None: the stated size is of another shape."""
    if image.size is None or min(image.size) < 1:
        return UNSCALED
    width, height = image.size
    if abs(width - record.width) <= 1 and abs(height - record.height) <= 1:
        return UNSCALED
    if abs(width * record.height - height * record.width) > record.width + record.height:
        return None  # rounding both sides to whole pixels does less
    return record.width / width, record.height / height

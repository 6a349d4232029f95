"""From annotation files to a dataset that can be used: images decoded and identified, roles kept
apart, boxes checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from mgral_service.datasets.geometry import fit_box
from mgral_service.datasets.images import folder_below, inspect_image
from mgral_service.datasets.ledger import Ledger
from mgral_service.datasets.listing import (
    Catalogue,
    ListedImage,
    Listing,
    Role,
    image_folders,
    images_folder,
    root_of,
)
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import DatasetRefused, InvalidInput
from mgral_service.domain.pool import carve_scoring
from mgral_service.domain.ports import Report
from mgral_service.domain.records import DatasetRecord, ImageRecord, IngestReport, Progress
from mgral_service.domain.specs import DatasetSpec

THREADS = 4
ONE = (1.0, 1.0)


@dataclass(frozen=True, slots=True, eq=False)
class Ingested:
    """A dataset that was read and checked.

    images       all that were accepted, in the order of the files that list them
    labelled ... test   image ids by role, disjoint
    annotations  of the labelled, scoring and test images, pixels of the original image
    """

    classes: tuple[str, ...]
    images: tuple[ImageRecord, ...]
    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    scoring: tuple[str, ...]
    test: tuple[str, ...]
    annotations: Annotations
    report: IngestReport


def record_of(spec: DatasetSpec, ingested: Ingested, created: float) -> DatasetRecord:
    """What the DatasetStore keeps; `created` in seconds since the epoch."""
    return DatasetRecord(
        spec=spec,
        classes=ingested.classes,
        images=ingested.images,
        labelled=ingested.labelled,
        unlabelled=ingested.unlabelled,
        scoring=ingested.scoring,
        test=ingested.test,
        report=ingested.report,
        created=created,
    )


def assemble(
    spec: DatasetSpec, catalogue: Catalogue, ledger: Ledger, report: Report | None
) -> Ingested:
    """Look at every listed image and check every box. Refused images fall out with their boxes.

    DatasetRefused if two roles share an image (by content) or a role has no image left.
    """
    outcomes = _inspect_all(spec, catalogue, report)
    accepted = _accept(catalogue, outcomes, ledger)
    for listing in catalogue.listings:
        _require_images(listing, accepted.roles[listing.role], ledger)
    truth = annotate(catalogue, {image.file: image for image in accepted.images}, ledger)
    _count_images(accepted, truth, ledger)
    labelled = tuple(accepted.roles["labelled"])
    scoring = tuple(accepted.roles.get("scoring", ()))
    if spec.scoring is None:
        scoring = carve_scoring(labelled, spec.scoring_share, np.random.default_rng(spec.seed))
        carved = set(scoring)
        labelled = tuple(name for name in labelled if name not in carved)
    return Ingested(
        classes=catalogue.classes,
        images=tuple(accepted.images),
        labelled=labelled,
        unlabelled=tuple(accepted.roles.get("unlabelled", ())),
        scoring=scoring,
        test=tuple(accepted.roles.get("test", ())),
        annotations=truth,
        report=ledger.report(),
    )


def annotate(
    catalogue: Catalogue, images: Mapping[str, ImageRecord], ledger: Ledger
) -> Annotations:
    """The checked boxes of the labelled, scoring and test images; `images` by file. A listed image
    that is not in `images`, or was met before, is passed over.
    """
    join = _Join(catalogue.classes, ledger)
    for listing in catalogue.listings:
        if listing.role != "unlabelled":
            for image in listing.images:
                known = images.get(image.file)
                if known is not None:
                    join.add(listing.file, image, known)
    return join.annotations()


def join_boxes(
    file: str,
    matched: Sequence[tuple[ListedImage, ImageRecord]],
    classes: tuple[str, ...],
    ledger: Ledger,
) -> Annotations:
    """The checked boxes of images of one file, each with the record it stands for."""
    join = _Join(classes, ledger)
    for image, known in matched:
        join.add(file, image, known)
    return join.annotations()


class _Join:
    """Collects the boxes of images, each image once."""

    def __init__(self, classes: tuple[str, ...], ledger: Ledger) -> None:
        self._class = {name: at for at, name in enumerate(classes)}
        self._ledger = ledger
        self._position: dict[str, int] = {}
        self._image: list[int] = []
        self._boxes: list[tuple[float, float, float, float]] = []
        self._labels: list[int] = []
        self._ignore: list[bool] = []

    def add(self, file: str, image: ListedImage, known: ImageRecord) -> None:
        if known.id in self._position:
            return
        stretch = _stretch(image, known)
        at = self._position[known.id] = len(self._position)
        for box in image.boxes:
            if box.label not in self._class:
                self._ledger.refuse_box(file, box.record, f"unknown category {box.label!r}")
                continue
            fitted = fit_box(_stretched(box.box, stretch), known.width, known.height)
            if fitted.box is None:
                self._ledger.refuse_box(file, box.record, fitted.problem or "wrong")
                continue
            problem = fitted.problem or (None if stretch == ONE else "scaled to the file's size")
            if problem is not None:
                self._ledger.repair_box(file, box.record, problem)
            self._ledger.accepted_boxes += 1
            self._image.append(at)
            self._boxes.append(fitted.box)
            self._labels.append(self._class[box.label])
            self._ignore.append(box.ignore)

    def annotations(self) -> Annotations:
        return Annotations(
            tuple(self._position),
            np.array(self._image, dtype=np.int64),
            np.array(self._boxes, dtype=np.float64).reshape(-1, 4),
            np.array(self._labels, dtype=np.int64),
            np.array(self._ignore, dtype=np.bool_),
        )


@dataclass(frozen=True, slots=True)
class _Accepted:
    """Images in order, and ids by role."""

    images: list[ImageRecord] = field(default_factory=list)
    roles: dict[Role, list[str]] = field(default_factory=dict)


def _inspect_all(
    spec: DatasetSpec, catalogue: Catalogue, report: Report | None
) -> dict[str, ImageRecord | InvalidInput]:
    """Every listed file once, decoded in a few threads: its record, or what is wrong with it."""
    root = root_of(spec)
    for one in image_folders(spec):
        folder_below(root, one)
    folder = folder_below(root, images_folder(spec))
    files = list(
        dict.fromkeys(image.file for listing in catalogue.listings for image in listing.images)
    )

    def inspect(file: str) -> ImageRecord | InvalidInput:
        try:
            return inspect_image(root, folder, file)
        except InvalidInput as error:
            return error

    outcomes: dict[str, ImageRecord | InvalidInput] = {}
    step = max(1, len(files) // 100)
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="decode")
    try:
        for file, outcome in zip(files, pool.map(inspect, files), strict=True):
            outcomes[file] = outcome
            if report is not None and (len(outcomes) % step == 0 or len(outcomes) == len(files)):
                report(Progress("INGESTING", len(outcomes), len(files)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return outcomes


def _accept(
    catalogue: Catalogue, outcomes: Mapping[str, ImageRecord | InvalidInput], ledger: Ledger
) -> _Accepted:
    """Give each usable image its one role; DatasetRefused names images that two roles share."""
    accepted = _Accepted()
    owner: dict[str, tuple[Listing, ListedImage]] = {}
    shared: list[str] = []
    for listing in catalogue.listings:
        ids = accepted.roles.setdefault(listing.role, [])
        for image in listing.images:
            outcome = _agreeing(image, outcomes[image.file])
            if isinstance(outcome, InvalidInput):
                problem = f"{image.file}: {outcome.what}"
                ledger.refuse_image(listing.file, image.record, problem, len(image.boxes))
            elif outcome.id not in owner:
                owner[outcome.id] = (listing, image)
                accepted.images.append(outcome)
                ids.append(outcome.id)
                _check_size(listing.file, image, outcome, ledger)
            else:
                other, first = owner[outcome.id]
                if other.role != listing.role:
                    shared.append(f"{image.file} ({listing.file}) and {first.file} ({other.file})")
                problem = f"{image.file}: has the same content as {first.file} ({first.record})"
                ledger.refuse_image(listing.file, image.record, problem, len(image.boxes))
    if shared:
        some = "; ".join(shared[:3]) + ("; ..." if len(shared) > 3 else "")
        raise DatasetRefused(
            "roles",
            f"{len(shared)} images are in two roles by content, take them out of one: {some}",
        )
    return accepted


def size_problem(image: ListedImage, known: ImageRecord) -> str | None:
    """Why boxes of an image cannot be of this file, by the size that is stated of it: another
    shape, turned or cropped. None: they can, be it after scaling.
    """
    if not image.boxes or _stretch(image, known) is not None:
        return None
    return f"{_sizes(image, known)}: give its boxes in pixels of the file as it is stored"


def _agreeing(
    image: ListedImage, outcome: ImageRecord | InvalidInput
) -> ImageRecord | InvalidInput:
    """InvalidInput for a file whose boxes are of another."""
    if isinstance(outcome, InvalidInput):
        return outcome
    problem = size_problem(image, outcome)
    return outcome if problem is None else InvalidInput(image.file, problem)


def _check_size(file: str, image: ListedImage, known: ImageRecord, ledger: Ledger) -> None:
    if image.size is not None and image.size != (known.width, known.height):
        ledger.repair_image(file, image.record, f"{image.file}: {_sizes(image, known)}")


def _sizes(image: ListedImage, known: ImageRecord) -> str:
    assert image.size is not None
    width, height = image.size
    return f"stated as {width} x {height}, is {known.width} x {known.height}"


def _stretch(image: ListedImage, known: ImageRecord) -> tuple[float, float] | None:
    """What boxes have to be multiplied by, along x and y; None if the stated size is of another
    shape. A size that cannot be is none.
    """
    if image.size is None or min(image.size) < 1:
        return ONE
    width, height = image.size
    if abs(width - known.width) <= 1 and abs(height - known.height) <= 1:
        return ONE
    if abs(width * known.height - height * known.width) > known.width + known.height:
        return None  # rounding both sides to whole pixels does less
    return known.width / width, known.height / height


def _stretched(
    box: tuple[float, float, float, float], stretch: tuple[float, float] | None
) -> tuple[float, float, float, float]:
    x, y = stretch or ONE
    return box[0] * x, box[1] * y, box[2] * x, box[3] * y


def _require_images(listing: Listing, ids: Sequence[str], ledger: Ledger) -> None:
    if ids:
        return
    reason = next(
        (f"; first reason: {one.problem}" for one in ledger.findings if one.file == listing.file),
        "",
    )
    listed = "lists no image" if not listing.images else "has no usable image"
    raise DatasetRefused(listing.file, f"{listed}, so there is no {listing.role} split{reason}")


def _count_images(accepted: _Accepted, truth: Annotations, ledger: Ledger) -> None:
    ledger.accepted_images += len(accepted.images)
    ledger.images_without_boxes += len(truth) - len(np.unique(truth.image))

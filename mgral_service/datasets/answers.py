"""COCO out and back: a selection as a file to annotate, and the annotations that answer it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mgral_service.datasets.formats import images_folder
from mgral_service.datasets.formats.coco import (
    categories_of,
    coco_json,
    image_entry,
    listed_images,
)
from mgral_service.datasets.formats.listing import ListedImage
from mgral_service.datasets.ingest import join_boxes, size_problem
from mgral_service.datasets.validation_log import ValidationLog, printable
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import DatasetRefused, InvalidInput, NotFound
from mgral_service.domain.records import (
    DatasetImages,
    DatasetRecord,
    ImageRecord,
    Reconciliation,
    Selection,
)

POSTED = "annotations"  # what findings call the body that was posted


def coco_of(selection: Selection, record: DatasetRecord, images: DatasetImages) -> dict[str, Any]:
    """The selection as COCO JSON, best first, with the detector's boxes as pre-labels.

    Each image carries its `image_id`. NotFound for an image that the dataset does not have.
    """
    by_id = {image.id: image for image in images.images}
    folder = images_folder(record.spec)
    entries = []
    for chosen in selection.images:
        if chosen.image_id not in by_id:
            raise NotFound("image", chosen.image_id)
        entries.append(
            {
                "image_id": chosen.image_id,
                **image_entry(by_id[chosen.image_id], folder),
                "mgral_rank": chosen.rank,
                "mgral_score": chosen.score,
            }
        )
    boxes = [(row, box) for row, chosen in enumerate(selection.images) for box in chosen.boxes]
    pre_labels = Annotations(
        ids=tuple(chosen.image_id for chosen in selection.images),
        image=np.array([row for row, _ in boxes], dtype=np.int64),
        boxes=np.array([box.box for _, box in boxes], dtype=np.float64).reshape(-1, 4),
        labels=np.array([record.classes.index(box.label) for _, box in boxes], dtype=np.int64),
        ignore=np.zeros(len(boxes), dtype=np.bool_),
    )
    scores = np.array([box.score for _, box in boxes])
    return {
        "info": {
            "description": f"{selection.cycle}: images of {selection.dataset} to annotate; the "
            "boxes are a detector's and are to be corrected",
            "version": "1.0",
        },
        "licenses": [],
        **coco_json(record.classes, entries, pre_labels, scores, decimals=2),
    }


def read_answers(
    payload: Any, record: DatasetRecord, images: DatasetImages, selected: Sequence[str]
) -> tuple[Annotations, Reconciliation]:
    """The annotations in parsed COCO JSON that answer the `selected` images, and how they met.

    An image is matched by its `image_id`, or its `id` if that is a text, else by its exact
    `file_name`; a category by its name. Boxes are checked as a dataset's. An image without boxes is
    an answer too. InvalidInput if the payload is not COCO JSON at all.
    """
    if not isinstance(payload, dict):
        raise InvalidInput(POSTED, "must be COCO JSON: an object with images, annotations")
    log = ValidationLog(most=None)
    try:
        answered = listed_images(payload, POSTED, categories_of(payload, POSTED), log)
    except DatasetRefused as error:
        raise InvalidInput(error.where, error.what) from None
    match, chosen = _matcher(record, images), set(selected)
    matched: dict[str, tuple[ListedImage, ImageRecord]] = {}
    unknown: list[str] = []
    for image in answered:
        target = match(image)
        if target is None or target.id not in chosen:
            unknown.append(printable(image.image_id or image.file))
        elif target.id in matched:
            first = matched[target.id][0].record
            problem = f"answers {target.id}, which {first} has answered already"
            log.refuse_image(POSTED, image.record, problem, len(image.boxes))
        elif (misfit := size_problem(image, target)) is not None:
            log.refuse_image(POSTED, image.record, misfit, len(image.boxes))
        else:
            matched[target.id] = (image, target)
    ids = tuple(image_id for image_id in selected if image_id in matched)
    answers = join_boxes(((POSTED, *matched[image_id]) for image_id in ids), record.classes, log)
    return answers, Reconciliation(
        matched=ids,
        unknown=tuple(unknown),
        missing=tuple(image_id for image_id in selected if image_id not in matched),
        refused=tuple(finding for finding in log.findings if finding.action == "refused"),
        repaired=tuple(finding for finding in log.findings if finding.action == "repaired"),
        boxes=len(answers.boxes),
    )


def _matcher(
    record: DatasetRecord, images: DatasetImages
) -> Callable[[ListedImage], ImageRecord | None]:
    """Looks up the dataset's image that an entry stands for."""
    folder = images_folder(record.spec)
    by_id = {image.id: image for image in images.images}
    by_file = {image.file: image for image in images.images}
    by_file |= {image_entry(image, folder)["file_name"]: image for image in images.images}

    def match(image: ListedImage) -> ImageRecord | None:
        if image.image_id is not None and image.image_id.startswith("img_"):
            return by_id.get(image.image_id)
        return by_file.get(image.file)

    return match


def answer_from(asked: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any]:
    """What an annotation tool sends back: the asked images, each with its true boxes."""
    by_file = {image["file_name"]: image["id"] for image in truth["images"]}
    asked_id = {by_file[image["file_name"]]: image["id"] for image in asked["images"]}
    boxes = [box for box in truth["annotations"] if box["image_id"] in asked_id]
    return {
        "images": asked["images"],
        "categories": truth["categories"],
        "annotations": [
            {**box, "id": number, "image_id": asked_id[box["image_id"]]}
            for number, box in enumerate(boxes, start=1)
        ],
    }

"""COCO out and back: a selection as a file to annotate, and the annotations that answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mgral_service.datasets.coco import categories_of, listed_images, relative_name
from mgral_service.datasets.ingest import join_boxes, size_problem
from mgral_service.datasets.ledger import Ledger, printable
from mgral_service.datasets.listing import ListedImage, images_folder
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import DatasetRefused, InvalidInput, NotFound
from mgral_service.domain.records import (
    DatasetRecord,
    ImageRecord,
    PredictedBox,
    Reconciliation,
    Selection,
)

POSTED = "annotations"
"""What findings call the body that was posted."""


def coco_of(selection: Selection, record: DatasetRecord) -> dict[str, Any]:
    """The selection as COCO JSON, best first, with the detector's boxes as pre-labels.

    Each image carries `image_id`, by which its annotations find back. NotFound for an image that
    the dataset does not have.
    """
    by_id = {image.id: image for image in record.images}
    category = {name: at for at, name in enumerate(record.classes, 1)}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for at, chosen in enumerate(selection.images, 1):
        if chosen.image_id not in by_id:
            raise NotFound("image", chosen.image_id)
        image = by_id[chosen.image_id]
        images.append(
            {
                "id": at,
                "image_id": image.id,
                "file_name": relative_name(image.file, images_folder(record.spec)),
                "width": image.width,
                "height": image.height,
                "mgral_rank": chosen.rank,
                "mgral_score": chosen.score,
            }
        )
        for box in chosen.boxes:
            number = len(annotations) + 1
            annotations.append(_pre_label(number, at, category[box.label], box))
    return {
        "info": {
            "description": f"{selection.cycle}: images of {selection.dataset} to annotate; the "
            "boxes are a detector's and are to be corrected",
            "version": "1.0",
        },
        "licenses": [],
        "categories": [{"id": at, "name": name} for name, at in category.items()],
        "images": images,
        "annotations": annotations,
    }


def read_answers(
    payload: Any, record: DatasetRecord, selected: Sequence[str]
) -> tuple[Annotations, Reconciliation]:
    """The annotations in parsed COCO JSON that answer the `selected` images, and how they met.

    An image is found by its `image_id`, or its `id` if that is a text, else by its exact
    `file_name`; a category by its name. Boxes meet the rules of a dataset's, and are scaled where
    the image is stated in another size, refused where in another shape. An image without boxes is
    an answer too. InvalidInput if the payload is not COCO JSON at all.
    """
    if not isinstance(payload, dict):
        raise InvalidInput(POSTED, "must be COCO JSON: an object with images, annotations")
    ledger = Ledger(keep=None)
    try:
        categories = categories_of(payload, POSTED)
        images = listed_images(payload, POSTED, categories, ledger)
    except DatasetRefused as error:
        raise InvalidInput(error.where, error.what) from None
    chosen = set(selected)
    finder = _Finder(record)
    matched: dict[str, tuple[ListedImage, ImageRecord]] = {}
    unknown: list[str] = []
    for image in images:
        known = finder.find(image)
        if known is None or known.id not in chosen:
            unknown.append(printable(image.image_id or image.file))
        elif known.id in matched:
            first = matched[known.id][0].record
            problem = f"answers {known.id}, which {first} has answered already"
            ledger.refuse_image(POSTED, image.record, problem, len(image.boxes))
        elif (misfit := size_problem(image, known)) is not None:
            ledger.refuse_image(POSTED, image.record, misfit, len(image.boxes))
        else:
            matched[known.id] = (image, known)
    in_order = tuple(name for name in selected if name in matched)
    answers = join_boxes(POSTED, [matched[name] for name in in_order], record.classes, ledger)
    return answers, Reconciliation(
        matched=in_order,
        unknown=tuple(unknown),
        missing=tuple(name for name in selected if name not in matched),
        refused=tuple(one for one in ledger.findings if one.action == "refused"),
        repaired=tuple(one for one in ledger.findings if one.action == "repaired"),
        boxes=len(answers.boxes),
    )


class _Finder:
    """Finds the dataset's image that an entry stands for."""

    def __init__(self, record: DatasetRecord) -> None:
        folder = images_folder(record.spec)
        self._by_id = {image.id: image for image in record.images}
        self._by_file: Mapping[str, ImageRecord] = {
            **{image.file: image for image in record.images},
            **{relative_name(image.file, folder): image for image in record.images},
        }

    def find(self, image: ListedImage) -> ImageRecord | None:
        if image.image_id is not None and image.image_id in self._by_id:
            return self._by_id[image.image_id]
        if image.image_id is not None and image.image_id.startswith("img_"):
            return None
        return self._by_file.get(image.file)


def _pre_label(number: int, image: int, category: int, box: PredictedBox) -> dict[str, Any]:
    x1, y1, x2, y2 = (round(value, 2) for value in box.box)
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x1, y1, width, height],
        "area": round(width * height, 2),
        "iscrowd": 0,
        "score": box.score,
    }


def answer_from(asked: dict[str, Any], truth: dict[str, Any]) -> dict[str, Any]:
    """What an annotation tool sends back: the asked images, each with its true boxes."""
    by_file = {image["file_name"]: image["id"] for image in truth["images"]}
    wanted = {by_file[image["file_name"]]: image["id"] for image in asked["images"]}
    boxes = [one for one in truth["annotations"] if one["image_id"] in wanted]
    return {
        "images": asked["images"],
        "categories": truth["categories"],
        "annotations": [
            {**one, "id": number, "image_id": wanted[one["image_id"]]}
            for number, one in enumerate(boxes, start=1)
        ],
    }

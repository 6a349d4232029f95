"""Answers to queries from labels that are held back: for experiments and for the demo."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mgral_service.datasets import Ingested, ingest
from mgral_service.datasets.formats import images_folder
from mgral_service.datasets.formats.coco import coco_json, image_entry
from mgral_service.datasets.formats.listing import ROLES
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import Report
from mgral_service.domain.records import DatasetImages
from mgral_service.domain.specs import DatasetSpec


class RevealingOracle:
    """Has the labels of its images, and shows those it is asked for."""

    def __init__(self, annotations: Annotations) -> None:
        self._annotations = annotations

    def annotate(self, ids: Sequence[str]) -> Annotations:
        """The labels of `ids`, in that order; InvalidInput for an image without labels."""
        try:
            return self._annotations.subset(ids)
        except KeyError as error:
            what = "the oracle has no labels for it"
            raise InvalidInput(f"image {error.args[0]}", what) from None


def write_held_back(
    spec: DatasetSpec, out: Path, initial: int, seed: int, report: Report | None = None
) -> DatasetSpec:
    """The spec of `hold_back` for a dataset that was not read yet."""
    return hold_back(ingest(spec, report), out, initial, seed).record.spec


def hold_back(dataset: Ingested, out: Path, initial: int, seed: int) -> Ingested:
    """Write COCO files into `out` that show the labels of `initial` images only.

    `unlabelled.json` lists the other labelled images too, without boxes; `scoring.json` and
    `test.json` are whole. Images stay where they are. Returns what `ingest` would give for the new
    files, whose paths are absolute. InvalidInput unless `initial` leaves labels to hold back.
    """
    spec, images = dataset.record.spec, dataset.images
    labelled, others = _draw(images.labelled, initial, seed)
    by_id = {image.id: image for image in images.images}
    pool = (*others, *images.unlabelled)
    ids = (*labelled, *pool, *images.scoring, *images.test)
    held = replace(
        images,
        images=tuple(by_id[image_id] for image_id in ids),
        labelled=labelled,
        unlabelled=pool,
    )
    visible = dataset.annotations.subset((*labelled, *images.scoring, *images.test))
    paths = _write(out, held, visible, dataset.record.classes, images_folder(spec))
    record = replace(
        dataset.record,
        spec=DatasetSpec(
            name=spec.name,
            root=spec.root,
            images=images_folder(spec),
            **paths,
        ),
        labelled=len(labelled),
        unlabelled=len(pool),
        report=replace(
            dataset.record.report,
            accepted_boxes=len(visible.boxes),
            images_without_boxes=len(visible) - len(np.unique(visible.image)),
        ),
    )
    return Ingested(record, held, visible)


def _write(
    out: Path, images: DatasetImages, visible: Annotations, classes: Sequence[str], folder: str
) -> dict[str, str]:
    """The absolute path of the file that was written for each role that has images."""
    by_id = {image.id: image for image in images.images}
    out.mkdir(parents=True, exist_ok=True)
    paths: dict[str, str] = {}
    for role in ROLES:
        ids: tuple[str, ...] = getattr(images, role)
        path = (out / f"{role}.json").resolve()
        path.unlink(missing_ok=True)
        if ids:
            truth = Annotations.empty(ids) if role == "unlabelled" else visible.subset(ids)
            entries = [image_entry(by_id[image_id], folder) for image_id in ids]
            content = json.dumps(coco_json(classes, entries, truth), indent=1)
            path.write_text(content + "\n", encoding="utf-8")
            paths[role] = str(path)
    return paths


def _draw(ids: Sequence[str], initial: int, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`initial` ids, drawn uniformly, and the rest; both in the order of `ids`."""
    if not 1 <= initial < len(ids):
        raise InvalidInput(
            "initial", f"must lie between 1 and {len(ids) - 1}: {len(ids)} images are labelled"
        )
    rows = np.random.default_rng(seed).choice(len(ids), size=initial, replace=False)
    drawn = {ids[row] for row in rows}
    return (
        tuple(image_id for image_id in ids if image_id in drawn),
        tuple(image_id for image_id in ids if image_id not in drawn),
    )

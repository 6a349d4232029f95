"""Answers to queries from labels that are held back: for experiments and for the demo."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mgral_service.datasets import Ingested, ingest
from mgral_service.datasets.coco import relative_name
from mgral_service.datasets.listing import images_folder
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import Report
from mgral_service.domain.records import ImageRecord
from mgral_service.domain.specs import DatasetSpec


class RevealingOracle:
    """Knows the labels of some images, shows those it is asked for, and remembers which."""

    def __init__(self, annotations: Annotations) -> None:
        self._annotations = annotations
        self._known = frozenset(annotations.ids)
        self._asked: dict[str, None] = {}

    @property
    def asked(self) -> tuple[str, ...]:
        """Every id asked for so far, once each, in order."""
        return tuple(self._asked)

    def annotate(self, ids: Sequence[str]) -> Annotations:
        """The labels of `ids`, in that order; InvalidInput if one is unknown."""
        for name in ids:
            if name not in self._known:
                raise InvalidInput(f"image {name}", "the oracle has no labels for it")
        self._asked.update(dict.fromkeys(ids))
        return self._annotations.subset(ids)


def hold_back(
    ingested: Ingested, initial: int, rng: np.random.Generator
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`initial` of the labelled ids, drawn uniformly, and the rest, which plays the pool."""
    return _draw(ingested.labelled, initial, rng)


def write_held_back(
    spec: DatasetSpec, out: Path, initial: int, seed: int, report: Report | None = None
) -> DatasetSpec:
    """Write COCO files into `out` that show the labels of `initial` images only.

    `labelled.json` has those, `unlabelled.json` lists all other labelled images of `spec` without
    boxes, `scoring.json` and `test.json` (where `spec` has them) are whole. Images stay where they
    are. Returns the spec that a service may be given; its files are absolute paths.
    """
    ingested = ingest(spec, report)
    given = set(ingested.labelled)
    if spec.scoring is None:
        given.update(ingested.scoring)
    labelled, pool = _draw(
        tuple(image.id for image in ingested.images if image.id in given),
        initial,
        np.random.default_rng(seed),
    )
    scoring = () if spec.scoring is None else ingested.scoring
    out.mkdir(parents=True, exist_ok=True)
    paths: dict[str, str | None] = {}
    for role, ids, with_boxes in (
        ("labelled", labelled, True),
        ("unlabelled", (*pool, *ingested.unlabelled), False),
        ("scoring", scoring, True),
        ("test", ingested.test, True),
    ):
        path = (out / f"{role}.json").resolve()
        path.unlink(missing_ok=True)
        paths[role] = str(path) if ids else None
        if ids:
            content = _coco_of(ingested, ids, with_boxes, images_folder(spec))
            path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return DatasetSpec(
        name=spec.name,
        root=spec.root,
        images=images_folder(spec),
        labelled=paths["labelled"] or "labelled.json",
        unlabelled=paths["unlabelled"],
        scoring=paths["scoring"],
        test=paths["test"],
        scoring_share=spec.scoring_share,
        seed=spec.seed,
    )


def _draw(
    ids: tuple[str, ...], initial: int, rng: np.random.Generator
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Both parts in the order of `ids`."""
    if not 1 <= initial < len(ids):
        raise InvalidInput(
            "initial", f"must lie between 1 and {len(ids) - 1}: {len(ids)} images are labelled"
        )
    drawn = set(rng.choice(len(ids), size=initial, replace=False).tolist())
    return (
        tuple(name for at, name in enumerate(ids) if at in drawn),
        tuple(name for at, name in enumerate(ids) if at not in drawn),
    )


def _coco_of(
    ingested: Ingested, ids: Sequence[str], with_boxes: bool, folder: str
) -> Mapping[str, Any]:
    records: dict[str, ImageRecord] = {image.id: image for image in ingested.images}
    truth = ingested.annotations.subset(ids) if with_boxes else Annotations.empty(ids)
    return {
        "categories": [{"id": at, "name": name} for at, name in enumerate(ingested.classes, 1)],
        "images": [
            {
                "id": at,
                "file_name": relative_name(records[name].file, folder),
                "width": records[name].width,
                "height": records[name].height,
            }
            for at, name in enumerate(ids, 1)
        ],
        "annotations": [
            {
                "id": at,
                "image_id": int(image) + 1,
                "category_id": int(label) + 1,
                "bbox": [float(box[0]), float(box[1]), *(float(s) for s in box[2:] - box[:2])],
                "area": float(np.prod(box[2:] - box[:2])),
                "iscrowd": int(ignore),
            }
            for at, (image, box, label, ignore) in enumerate(
                zip(truth.image, truth.boxes, truth.labels, truth.ignore, strict=True), 1
            )
        ],
    }

"""Values that tests of stores, gateway and cluster start from."""

from __future__ import annotations

import numpy as np

from mgral_service.domain.boxes import Annotations
from mgral_service.domain.records import (
    CycleRecord,
    DatasetImages,
    DatasetRecord,
    ImageRecord,
    IngestReport,
    LookupRecord,
    ProxySpec,
    Status,
)
from mgral_service.domain.specs import CycleSpec, DatasetSpec


def cycle_record(name: str = "cyc_1", dataset: str = "digits") -> CycleRecord:
    return CycleRecord(name, CycleSpec(dataset, budget=2), Status.QUEUED, 0, 1000.0, 1000.0)


def lookup_record(index: int, cycle: str = "cyc_1", score: float = 0.5) -> LookupRecord:
    return LookupRecord(
        cycle=cycle,
        index=index,
        role="uniform",
        chosen_by="uniform",
        fold=0,
        batch=("img_a", "img_b"),
        score=score,
        seed=7,
        duration_s=2.0,
    )


def proxy_spec(index: int, batch: tuple[str, ...] = (), scoring: tuple[str, ...] = ()) -> ProxySpec:
    """A uniform batch of fold 0, with whose labels the proxy trains."""
    return ProxySpec(
        index=index,
        role="uniform",
        chosen_by="uniform",
        fold=0,
        batch=batch,
        labelled=batch,
        unlabelled=(),
        scoring=scoring,
        seed=0,
    )


def dataset_record(name: str = "digits", root: str = "/data") -> DatasetRecord:
    return DatasetRecord(
        spec=DatasetSpec(name, root),
        classes=("zero", "one"),
        labelled=2,
        unlabelled=6,
        scoring=1,
        test=0,
        report=IngestReport(9, 0, 3, 0, 0, 0),
        created=1000.0,
    )


def dataset_images() -> DatasetImages:
    """Two labelled images, one that scores, and a pool img_0 to img_5."""
    pool = tuple(f"img_{number}" for number in range(6))
    ids = ("img_a", "img_b", "img_s", *pool)
    return DatasetImages(
        images=tuple(ImageRecord(image_id, f"{image_id}.jpg", 100, 80) for image_id in ids),
        labelled=("img_a", "img_b"),
        unlabelled=pool,
        scoring=("img_s",),
    )


def boxes_in(*ids: str) -> Annotations:
    """One box of class 1 in each image."""
    count = len(ids)
    return Annotations(
        ids,
        np.arange(count, dtype=np.int64),
        np.tile(np.array([[1.0, 2.0, 30.5, 40.0]]), (count, 1)),
        np.ones(count, dtype=np.int64),
        np.zeros(count, dtype=np.bool_),
    )

"""Values that tests of stores and gateway start from."""

from __future__ import annotations

import numpy as np

from mgral_service.domain.boxes import Annotations
from mgral_service.domain.records import (
    CycleRecord,
    DatasetRecord,
    ImageRecord,
    IngestReport,
    LookupRecord,
    Status,
)
from mgral_service.domain.specs import CycleSpec, DatasetSpec


def cycle_record(name: str = "cyc_1", dataset: str = "digits") -> CycleRecord:
    return CycleRecord(name, CycleSpec(dataset, budget=2), Status.QUEUED, 0, 1000.0, 1000.0)


def lookup_record(index: int, cycle: str = "cyc_1", score: float = 0.5) -> LookupRecord:
    return LookupRecord(cycle, index, ("img_a", "img_b"), (0.25, 1.5), score, 7, 2.0, "uniform")


def dataset_record(name: str = "digits", unlabelled: int = 6, seed: int = 0) -> DatasetRecord:
    """Two labelled images, one that scores, and a pool img_0, img_1, ..."""
    pool = tuple(f"img_{at}" for at in range(unlabelled))
    ids = ("img_a", "img_b", "img_s", *pool)
    return DatasetRecord(
        DatasetSpec(name, "/data", seed=seed),
        ("zero", "one"),
        tuple(ImageRecord(one, f"{one}.jpg", 100, 80) for one in ids),
        ("img_a", "img_b"),
        pool,
        ("img_s",),
        (),
        IngestReport(len(ids), 0, 3, 0, 0, 0),
        1000.0,
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

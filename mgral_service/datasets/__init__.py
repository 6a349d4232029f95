"""Datasets: annotation formats, images from outside, generated scenes and the oracle.

A format is a Reader in a file of its own and a line in `DATASETS`; everything after the reading is
the same for all.
"""

from __future__ import annotations

from mgral_service.datasets.coco import read_coco
from mgral_service.datasets.ingest import Ingested, annotate, assemble, record_of
from mgral_service.datasets.ledger import Ledger
from mgral_service.datasets.listing import Reader
from mgral_service.datasets.voc import read_voc
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import DatasetRefused
from mgral_service.domain.ports import Report
from mgral_service.domain.records import DatasetRecord
from mgral_service.domain.specs import DatasetSpec

DATASETS: dict[str, Reader] = {"coco": read_coco, "voc": read_voc}

__all__ = ["DATASETS", "Ingested", "annotations_of", "ingest", "record_of"]


def ingest(spec: DatasetSpec, report: Report | None = None) -> Ingested:
    """Read a dataset, decode every image, check every box.

    DatasetRefused if it cannot be used at all; anything less is a finding in the report.
    """
    ledger = Ledger()
    catalogue = DATASETS[spec.format](spec, ledger)
    return assemble(spec, catalogue, ledger, report)


def annotations_of(record: DatasetRecord) -> Annotations:
    """The annotations that `ingest` gave, read again from the files without opening an image.

    DatasetRefused if the files no longer list the same images or classes.
    """
    ledger = Ledger()
    catalogue = DATASETS[record.spec.format](record.spec, ledger)
    truth = annotate(catalogue, {image.file: image for image in record.images}, ledger)
    expected = {*record.labelled, *record.scoring, *record.test}
    if catalogue.classes != record.classes or set(truth.ids) != expected:
        raise DatasetRefused(
            record.spec.name,
            "its annotation files have changed since it was registered: register it by a new name",
        )
    return truth

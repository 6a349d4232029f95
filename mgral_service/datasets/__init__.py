"""Datasets: annotation formats, image files, generated scenes and the oracle.

A format is a file of `formats/` and a line in `FORMATS`.
"""

from mgral_service.datasets.formats import FORMATS, format_of
from mgral_service.datasets.images import Sink
from mgral_service.datasets.ingest import Ingested, annotations_of, ingest

__all__ = ["FORMATS", "Ingested", "Sink", "annotations_of", "format_of", "ingest"]

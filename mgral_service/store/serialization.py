"""The forms that values take in a store: annotations as JSON, event ids as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mgral_service import codec
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class _Rows:
    """Annotations without arrays; one entry of each list an object."""

    ids: tuple[str, ...]
    image: tuple[int, ...]
    boxes: tuple[tuple[float, float, float, float], ...]
    labels: tuple[int, ...]
    ignore: tuple[bool, ...]


def annotations_to_json(labels: Annotations) -> str:
    """JSON text; InvalidInput if a box holds NaN."""
    columns = ("image", "boxes", "labels", "ignore")
    rows = {name: getattr(labels, name).tolist() for name in columns}
    return codec.encode({"ids": labels.ids, **rows})


def annotations_from_json(text: str | bytes) -> Annotations:
    rows = codec.decode(_Rows, text)
    return Annotations(
        rows.ids,
        np.array(rows.image, dtype=np.int64),
        np.array(rows.boxes, dtype=np.float64).reshape(-1, 4),
        np.array(rows.labels, dtype=np.int64),
        np.array(rows.ignore, dtype=np.bool_),
    )


def event_order(event: str) -> tuple[int, int]:
    """A Redis Stream id such as "1700000000000-3", or "0", as numbers that order it."""
    major, dash, minor = event.partition("-")
    for digits in (major, minor if dash else "0"):
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 19):
            raise InvalidInput("Last-Event-ID", "must be an event's id, such as 1700000000000-0")
    return int(major), int(minor or "0")

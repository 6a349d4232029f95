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
    boxes = [(float(x0), float(y0), float(x1), float(y1)) for x0, y0, x1, y1 in labels.boxes]
    return codec.encode(
        _Rows(
            labels.ids,
            tuple(labels.image.tolist()),
            tuple(boxes),
            tuple(labels.labels.tolist()),
            tuple(labels.ignore.tolist()),
        )
    )


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

"""Images decoded once and kept at training size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from mgral_service.datasets.images import content_id, decode_image, read_image, squeezed
from mgral_service.domain.arrays import FloatArray, ImageArray, IntArray
from mgral_service.domain.boxes import Annotations, Detections
from mgral_service.domain.errors import DatasetRefused, InvalidInput
from mgral_service.domain.ports import Report
from mgral_service.domain.records import ImageRecord, Progress

THREADS = 4


@dataclass(frozen=True, slots=True, eq=False)
class ImageStore:
    """Images at training size S, and the way between their pixels and the originals'.

    ids       [N] image ids
    pixels    [N, 3, S, S] RGB uint8, the whole image squeezed to a square
    sizes     [N, 2] width and height of the originals, pixels
    position  id -> row
    """

    ids: tuple[str, ...]
    pixels: ImageArray
    sizes: FloatArray
    position: dict[str, int]

    @property
    def size(self) -> int:
        """S, pixels."""
        return int(self.pixels.shape[-1])

    def rows(self, ids: Iterable[str]) -> IntArray:
        """Their rows; KeyError for an id that is not here."""
        return np.array([self.position[name] for name in ids], dtype=np.int64)

    def scale(self, annotations: Annotations) -> Annotations:
        """The same boxes in training pixels."""
        factors = self._factors(annotations.ids, annotations.image)
        return replace(annotations, boxes=annotations.boxes * factors)

    def unscale(self, detections: Detections) -> Detections:
        """Detections in training pixels, in pixels of their original images."""
        factors = self._factors(detections.ids, detections.image)
        return replace(detections, boxes=detections.boxes / factors)

    def _factors(self, ids: Sequence[str], image: IntArray) -> FloatArray:
        """[K, 4] training pixels an original pixel, by row."""
        sizes = self.sizes[self.rows(ids)][image]
        factors: FloatArray = self.size / np.concatenate([sizes, sizes], axis=1)
        return factors


def load_images(
    root: str | Path, images: Sequence[ImageRecord], size: int, report: Report | None = None
) -> ImageStore:
    """Decode `images` (files relative to `root`) to squares of `size` pixels.

    DatasetRefused names an image that is gone or whose content is not the registered one.
    """
    folder = Path(root).resolve()
    pixels = np.empty((len(images), 3, size, size), dtype=np.uint8)

    def load(row: int) -> None:
        pixels[row] = squeezed(_registered_image(folder, images[row]), size)

    step = max(1, len(images) // 100)
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="load")
    try:
        for done, _ in enumerate(pool.map(load, range(len(images))), start=1):
            if report is not None and (done % step == 0 or done == len(images)):
                report(Progress("LOADING", done, len(images)))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    ids = tuple(image.id for image in images)
    sizes = np.array([(image.width, image.height) for image in images], dtype=np.float64)
    return ImageStore(
        ids, pixels, sizes.reshape(-1, 2), {name: row for row, name in enumerate(ids)}
    )


def _registered_image(root: Path, image: ImageRecord) -> Image.Image:
    try:
        data = read_image(root, root, image.file)
        if content_id(data) != image.id:
            raise InvalidInput(
                image.file,
                f"has changed since it was registered as {image.id}: restore it, or register the "
                "dataset by a new name",
            )
        return decode_image(data, image.file)
    except InvalidInput as error:
        raise DatasetRefused(error.where, error.what) from None

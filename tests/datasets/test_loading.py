from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mgral_service.datasets import ingest
from mgral_service.datasets.loading import ImageStore, load_images
from mgral_service.domain.boxes import Detections
from mgral_service.domain.errors import DatasetRefused
from mgral_service.domain.records import ImageRecord, Progress
from tests.datasets.folders import coco_folder, picture


def ingested(root: Path) -> tuple[ImageRecord, ...]:
    folder = coco_folder(root)
    folder.add_image("a1.png", picture(50, 80, 20))
    return ingest(folder.write()).images


def load(root: Path, images: tuple[ImageRecord, ...], size: int = 20) -> ImageStore:
    return load_images(root, images, size)


def test_images_are_kept_in_order_at_training_size(tmp_path: Path) -> None:
    images = ingested(tmp_path)
    store = load(tmp_path, images)
    assert store.pixels.shape == (6, 3, 20, 20)
    assert store.pixels.dtype == np.uint8
    assert store.size == 20
    assert store.sizes[:2].tolist() == [[40, 30], [80, 20]]
    assert store.rows([images[3].id, images[1].id]).tolist() == [3, 1]
    alone = load(tmp_path, images[3:4])
    assert (alone.pixels[0] == store.pixels[3]).all()


def test_boxes_go_to_training_pixels_and_detections_come_back(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    got = ingest(folder.write())
    store = load(tmp_path, got.images)
    scaled = store.scale(got.annotations)
    np.testing.assert_allclose(scaled.boxes, [[5, 10 / 3, 15, 10]])  # x / 2, y * 2 / 3
    found = Detections(
        scaled.ids,
        scaled.image,
        scaled.boxes,
        scaled.labels,
        np.array([0.5]),
        np.array([[0.5, 0.25, 0.25]]),
    )
    np.testing.assert_allclose(store.unscale(found).boxes, got.annotations.boxes)


def test_no_boxes_are_scaled_to_no_boxes(tmp_path: Path) -> None:
    got = ingest(coco_folder(tmp_path).write())
    store = load(tmp_path, got.images)
    empty = got.annotations.subset(got.test)
    assert store.scale(empty).boxes.shape == (0, 4)


def test_an_image_that_is_gone_is_named(tmp_path: Path) -> None:
    images = ingested(tmp_path)
    (tmp_path / "images" / "a2.png").unlink()
    with pytest.raises(DatasetRefused, match=r"images/a2\.png: no such image"):
        load(tmp_path, images)


def test_an_image_that_changed_is_named(tmp_path: Path) -> None:
    images = ingested(tmp_path)
    (tmp_path / "images" / "a2.png").write_bytes(picture(99))
    with pytest.raises(DatasetRefused, match=r"images/a2\.png: has changed since .*img_"):
        load(tmp_path, images)


def test_a_record_that_points_outside_the_root_is_refused(tmp_path: Path) -> None:
    images = ingested(tmp_path / "root")
    (tmp_path / "a.png").write_bytes(picture(0))
    with pytest.raises(DatasetRefused, match="outside"):
        load(tmp_path / "root", (replace(images[0], file="../a.png"),))


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[Progress] = []
    load_images(tmp_path, ingested(tmp_path), 20, told.append)
    assert (told[-1].phase, told[-1].done, told[-1].total) == ("LOADING", 6, 6)


def test_no_images_give_an_empty_store(tmp_path: Path) -> None:
    assert load(tmp_path, ()).pixels.shape == (0, 3, 20, 20)

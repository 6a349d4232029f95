from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import Image

from mgral_service.datasets import images as image_files
from mgral_service.datasets import ingest, loading
from mgral_service.datasets.images import decode_image
from mgral_service.datasets.loading import ImageStore, load_images, map_images, memory_left
from mgral_service.domain.boxes import Annotations, Detections
from mgral_service.domain.errors import DatasetRefused, StaleLease, Unavailable
from mgral_service.domain.records import ImageRecord, Progress
from mgral_service.domain.specs import DetectorAdvanced, DetectorSpec
from tests.datasets.folders import coco_folder, picture
from tests.detectors.tiny import CLASSES, SIDE, squares


def ingested(root: Path) -> tuple[ImageRecord, ...]:
    folder = coco_folder(root)
    folder.add_image("a1.png", picture(50, 80, 20))
    return ingest(folder.write()).images.images


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
    store = load(tmp_path, got.images.images)
    scaled = store.scale(got.annotations)
    np.testing.assert_allclose(scaled.boxes, [[5, 10 / 3, 15, 10]])  # x / 2, y * 2 / 3
    detections = Detections(
        scaled.ids,
        scaled.image,
        scaled.boxes,
        scaled.labels,
        np.array([0.5]),
        np.array([[0.5, 0.25, 0.25]]),
    )
    np.testing.assert_allclose(store.unscale(detections).boxes, got.annotations.boxes)


def test_no_boxes_are_scaled_to_no_boxes(tmp_path: Path) -> None:
    got = ingest(coco_folder(tmp_path).write())
    store = load(tmp_path, got.images.images)
    empty = got.annotations.subset(got.images.test)
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


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    reports: list[Progress] = []
    load_images(tmp_path, ingested(tmp_path), 20, reports.append)
    assert reports[-1] == Progress("LOADING", 6, 6)


def test_no_images_give_an_empty_store(tmp_path: Path) -> None:
    assert load(tmp_path, ()).pixels.shape == (0, 3, 20, 20)


# --- in a file ----------------------------------------------------------------------------------


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every image is too much, and a chunk has two."""
    monkeypatch.setattr(loading, "SHARE", 0.0)
    monkeypatch.setattr("mgral_service.datasets.images.CHUNK", 2)
    monkeypatch.setattr(loading, "WAIT_S", 0.01)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each image was decoded, by its file."""
    counts: Counter[str] = Counter()

    def counted(data: bytes, file: str) -> Image.Image:
        counts[file] += 1
        return decode_image(data, file)

    monkeypatch.setattr(loading, "decode_image", counted)
    return counts


def load_mapped(root: Path, images: tuple[ImageRecord, ...], size: int = 20) -> ImageStore:
    """With files in `root`/kept."""
    return load_images(root, images, size, None, root / "kept")


def kept_files(root: Path) -> list[str]:
    """How the names of the files end."""
    return sorted(path.suffix for path in (root / "kept").iterdir())


def test_what_fits_stays_in_memory(tmp_path: Path) -> None:
    assert load_mapped(tmp_path, ingested(tmp_path)).file is None
    assert not (tmp_path / "kept").exists()


@pytest.mark.usefixtures("no_memory")
def test_what_does_not_fit_is_mapped_from_a_file(tmp_path: Path) -> None:
    images = ingested(tmp_path)
    plain, mapped = load(tmp_path, images), load_mapped(tmp_path, images)
    assert isinstance(mapped.pixels, np.memmap)
    assert not mapped.pixels.flags.writeable
    assert mapped.file is not None
    assert mapped.file.stat().st_size == 128 + 6 * 3 * 20 * 20
    np.testing.assert_array_equal(mapped.pixels, plain.pixels)
    assert mapped.sizes.tolist() == plain.sizes.tolist()
    assert mapped.position == plain.position
    assert kept_files(tmp_path) == [".lock", ".npy"]


@pytest.mark.usefixtures("no_memory")
def test_a_finished_file_is_used_again_without_the_originals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = ingested(tmp_path)
    first = load_mapped(tmp_path, images)
    for image in images:
        (tmp_path / image.file).unlink()
    monkeypatch.setattr(loading, "SHARE", 1.0)
    again = load_mapped(tmp_path, images)
    assert again.file == first.file
    np.testing.assert_array_equal(again.pixels, first.pixels)


@pytest.mark.usefixtures("no_memory")
def test_another_order_or_size_is_another_file(tmp_path: Path) -> None:
    images = ingested(tmp_path)
    stores = [
        load_mapped(tmp_path, images),
        load_mapped(tmp_path, images[::-1]),
        load_mapped(tmp_path, images, 10),
    ]
    assert len({store.file for store in stores}) == 3
    np.testing.assert_array_equal(stores[1].pixels, stores[0].pixels[::-1])


@pytest.mark.usefixtures("no_memory")
def test_a_mapped_store_pickles_without_its_pixels(tmp_path: Path) -> None:
    images = ingested(tmp_path)
    mapped = load_mapped(tmp_path, images, 500)  # 4.5 MB
    pickled = pickle.dumps(mapped)
    assert len(pickled) < 2000
    back = pickle.loads(pickled)
    assert back.file == mapped.file
    assert (back.ids, back.position) == (mapped.ids, mapped.position)
    np.testing.assert_array_equal(back.pixels, mapped.pixels)
    np.testing.assert_array_equal(back.sizes, mapped.sizes)


def test_a_store_in_memory_pickles_with_its_pixels(tmp_path: Path) -> None:
    store = load(tmp_path, ingested(tmp_path))
    back = pickle.loads(pickle.dumps(store))
    assert (back.ids, back.position, back.file) == (store.ids, store.position, None)
    np.testing.assert_array_equal(back.pixels, store.pixels)


@pytest.mark.usefixtures("no_memory")
def test_decoding_goes_on_where_it_was_interrupted(tmp_path: Path, decoded: Counter[str]) -> None:
    """The fifth of six images is wrong: two chunks of two are kept when it is found."""
    images = ingested(tmp_path)
    plain = load(tmp_path, images)
    right = (tmp_path / images[4].file).read_bytes()
    (tmp_path / images[4].file).write_bytes(picture(99))
    with pytest.raises(DatasetRefused, match="has changed since"):
        load_mapped(tmp_path, images)
    assert kept_files(tmp_path) == [".lock", ".part"]
    (tmp_path / images[4].file).write_bytes(right)
    decoded.clear()
    mapped = load_mapped(tmp_path, images)
    assert decoded == {images[4].file: 1, images[5].file: 1}
    np.testing.assert_array_equal(mapped.pixels, plain.pixels)
    assert kept_files(tmp_path) == [".lock", ".npy"]


def die_at_the_third(root: Path, images: tuple[ImageRecord, ...]) -> None:
    loading.SHARE = 0.0
    image_files.CHUNK = 1

    def die(progress: Progress) -> None:
        if progress.done == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    load_images(root, images, 20, die, root / "kept")


@pytest.mark.usefixtures("no_memory")
def test_decoding_goes_on_after_its_process_was_killed(
    tmp_path: Path, decoded: Counter[str]
) -> None:
    images = ingested(tmp_path)
    spawned = multiprocessing.get_context("spawn")
    process = spawned.Process(target=die_at_the_third, args=(tmp_path, images))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    mapped = load_mapped(tmp_path, images)
    assert sorted(decoded) == sorted(image.file for image in images[2:])
    np.testing.assert_array_equal(mapped.pixels, load(tmp_path, images).pixels)


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize("left", [b"", bytes(500)])
def test_a_part_without_a_header_counts_for_nothing(tmp_path: Path, left: bytes) -> None:
    images = ingested(tmp_path)
    mapped = load_mapped(tmp_path, images)
    assert mapped.file is not None
    mapped.file.unlink()
    mapped.file.with_suffix(".part").write_bytes(left)
    again = load_mapped(tmp_path, images)
    np.testing.assert_array_equal(again.pixels, mapped.pixels)


@pytest.mark.usefixtures("no_memory")
def test_two_at_once_decode_every_image_once(tmp_path: Path, decoded: Counter[str]) -> None:
    images = ingested(tmp_path)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: load_mapped(tmp_path, images), range(2))
    assert decoded == {image.file: 1 for image in images}
    assert first.file == second.file
    np.testing.assert_array_equal(first.pixels, second.pixels)


@pytest.mark.usefixtures("no_memory")
def test_who_waits_for_another_tells_its_progress(tmp_path: Path) -> None:
    """The other has written two chunks of two images; this one gives up at that report."""
    images = ingested(tmp_path)
    reports: list[Progress] = []

    def hear(progress: Progress) -> None:
        reports.append(progress)
        raise StaleLease("cyc_1", 1)

    def other(progress: Progress) -> None:
        if progress.done == 5:
            with pytest.raises(StaleLease):
                load_images(tmp_path, images, 20, hear, tmp_path / "kept")

    load_images(tmp_path, images, 20, other, tmp_path / "kept")
    assert reports == [Progress("LOADING", 4, 6)]


@pytest.mark.usefixtures("no_memory")
def test_a_disk_without_room_is_refused_before_an_image_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: Counter[str]
) -> None:
    """6 images of 3 x 20 x 20 bytes."""
    images = ingested(tmp_path)
    decoded.clear()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=7199))
    with pytest.raises(DatasetRefused, match=r"kept: has 7,199 bytes free.* need 7,200: make room"):
        load_mapped(tmp_path, images)
    assert not decoded
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=7200))
    assert load_mapped(tmp_path, images).file is not None


@pytest.mark.usefixtures("no_memory")
def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    images = ingested(tmp_path)
    (tmp_path / "kept").touch()
    with pytest.raises(Unavailable, match=r"decoded images cannot be reached .*kept: File exists"):
        load_mapped(tmp_path, images)


def test_a_container_leaves_less_than_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=9000))
    monkeypatch.setattr(loading, "CGROUP", tmp_path)
    assert memory_left() == 9000
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("2000\n")
    (tmp_path / "memory.stat").write_text("anon 1000\nactive_file 300\ninactive_file 700\n")
    assert memory_left() == 4000
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_left() == 9000


def certainty(detections: Detections, annotations: Annotations) -> float:
    """A metric that every weight has a part in."""
    return float(detections.scores.sum())


@pytest.mark.parametrize("augmentations", [0, 2])
def test_mapped_images_train_the_same_weights(tmp_path: Path, augmentations: int) -> None:
    from mgral_service.detectors.local import TaskDetector  # loads torch

    images, truth = squares(16)
    np.save(tmp_path / "images.npy", images.pixels)
    mapped = map_images(images.ids, images.sizes, tmp_path / "images.npy")
    advanced = DetectorAdvanced(augmentations=augmentations)
    spec = DetectorSpec(size=SIDE, steps=2, batch=4, learning_rate=1e-2, advanced=advanced)
    states, embeddings = [], []
    for store in (images, mapped):
        detector = TaskDetector(spec, CLASSES, store, certainty, seed=0)
        detector.fit(truth.subset(truth.ids[:6]), lambda progress: None)
        states.append(detector.state())
        embeddings.append(detector.predict(truth.ids[6:], lambda progress: None).embeddings)
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    np.testing.assert_array_equal(embeddings[0], embeddings[1])

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mgral_service.datasets import annotations_of, ingest
from mgral_service.datasets.images import content_id
from mgral_service.domain.errors import DatasetRefused, InvalidInput
from mgral_service.domain.records import Finding, Progress
from tests.datasets.folders import coco_folder, listing, picture


def test_a_clean_dataset_is_taken_whole(tmp_path: Path) -> None:
    got = ingest(coco_folder(tmp_path).write())
    ids = [content_id(picture(seed)) for seed in range(6)]
    assert [image.id for image in got.images.images] == ids
    assert got.images.labelled == tuple(ids[:4])
    assert (got.images.unlabelled, got.images.scoring) == ((), ())
    assert got.images.test == tuple(ids[4:])
    assert (got.record.classes, got.record.labelled, got.record.test) == (("dog", "cat"), 4, 2)
    assert got.annotations.ids == tuple(ids)
    assert got.annotations.boxes.tolist() == [[10, 5, 30, 15]]
    assert got.annotations.labels.tolist() == [1]
    report = got.record.report
    assert (report.accepted_images, report.accepted_boxes, report.images_without_boxes) == (6, 1, 5)
    assert report.findings == ()


def test_a_scoring_file_leaves_the_labelled_images_alone(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path).write()
    record = ingest(replace(spec, scoring="test.json", test=None)).record
    assert (record.labelled, record.scoring, record.test) == (4, 2, 0)


def test_a_format_that_is_not_registered_is_refused(tmp_path: Path) -> None:
    spec = replace(coco_folder(tmp_path).write(), format="yolo")
    with pytest.raises(InvalidInput, match="format: 'yolo' is none of coco, voc"):
        ingest(spec)


def test_every_bad_box_is_counted(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.annotate([30, 20, 20, 20])  # clipped to 40 x 30
    folder.annotate([50, 0, 5, 5])
    folder.annotate([5, 5, 0, 5])
    folder.annotate([5, 5, float("nan"), 5])
    folder.annotate([0.1, 0.1, 0.5, 0.5])
    folder.annotate([5, 5, 5, 5], category_id=1)
    got = ingest(folder.write())
    report = got.record.report
    assert (report.accepted_boxes, report.repaired_boxes, report.refused_boxes) == (2, 1, 5)
    assert got.annotations.boxes.tolist() == [[10, 5, 30, 15], [30, 20, 40, 30]]
    by_record = {item.record: (item.action, item.problem) for item in report.findings}
    assert by_record["annotations[1]"] == (
        "repaired",
        "partly outside the image of 40 x 30: clipped",
    )
    assert by_record["annotations[6]"] == ("refused", "unknown category 1")
    assert {finding.file for finding in report.findings} == {"train.json"}


def test_every_bad_image_falls_out_with_its_boxes(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path, train=8)
    folder.add_image("a0.png", picture(0)[:900])
    folder.add_image("a1.png", b"words")
    (tmp_path / "images" / "a2.png").unlink()
    folder.train["images"][3]["file_name"] = "../train.json"
    folder.add_image("a4.png", picture(5))  # the content of a5.png
    folder.annotate([1, 1, 9, 9], image_id=6)
    got = ingest(folder.write())
    report = got.record.report
    assert (report.accepted_images, report.refused_images) == (3 + 2, 5)
    assert (report.accepted_boxes, report.refused_boxes) == (0, 2)
    problems = {finding.record: finding.problem for finding in report.findings}
    assert "images/a0.png: cannot be decoded" in problems["images[0]"]
    assert "its 1 boxes fall out" in problems["images[0]"]
    assert "not an image" in problems["images[1]"]
    assert "no such image file" in problems["images[2]"]
    assert "outside" in problems["images[3]"]
    assert (
        "images/a5.png: has the same content as images/a4.png (images[4])"
        in (problems["images[5]"])
    )


def test_a_wrongly_stated_size_is_repaired(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.train["images"][0]["width"] = 41  # a pixel: whose rounding it was is not known
    folder.train["images"][1].update(width="40", height=None)
    del folder.train["images"][2]["width"], folder.train["images"][2]["height"]
    got = ingest(folder.write())
    assert (got.images.images[0].width, got.images.images[0].height) == (40, 30)
    assert got.record.report.findings == (
        Finding(
            "train.json", "images[0]", "images/a0.png: stated as 41 x 30, is 40 x 30", "repaired"
        ),
        Finding(
            "train.json", "images[1]", "images/a1.png: stated as -1 x -1, is 40 x 30", "repaired"
        ),
    )


def test_boxes_of_an_image_stated_in_another_size_are_scaled(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    plain = ingest(folder.write())
    folder.train["images"][0].update(width=120, height=91)
    key = folder.train["images"][0]["id"]
    own = [box for box in folder.train["annotations"] if box["image_id"] == key]
    for box in own:
        x, y, width, height = box["bbox"]
        box["bbox"] = [3 * x, 91 / 30 * y, 3 * width, 91 / 30 * height]
    got = ingest(folder.write())
    assert got.record.report.repaired_boxes == len(own) > 0
    assert got.annotations.boxes == pytest.approx(plain.annotations.boxes)


@pytest.mark.parametrize("size", [(30, 40), (80, 30)])
def test_boxes_of_an_image_of_another_shape_are_refused_with_it(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    """Turned by a tool that follows the EXIF orientation, for one."""
    folder = coco_folder(tmp_path)
    count = ingest(folder.write()).record.report
    folder.train["images"][0].update(width=size[0], height=size[1])
    got = ingest(folder.write()).record.report
    assert got.accepted_images == count.accepted_images - 1
    assert got.refused_images == 1
    assert got.refused_boxes + got.accepted_boxes == count.accepted_boxes
    assert "give its boxes in pixels of the file as it is stored" in got.findings[0].problem
    key = folder.train["images"][0]["id"]
    boxes = folder.train["annotations"]
    folder.train["annotations"] = [box for box in boxes if box["image_id"] != key]
    assert ingest(folder.write()).record.report.accepted_images == count.accepted_images


def test_an_image_in_two_roles_refuses_the_dataset_by_name(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.add_image("t1.png", picture(0))  # the content of a0.png
    with pytest.raises(DatasetRefused) as refused:
        ingest(folder.write())
    assert refused.value.where == "roles"
    assert "images/t1.png (test.json) and images/a0.png (train.json)" in refused.value.what


def test_a_pool_that_repeats_labelled_images_is_refused(tmp_path: Path) -> None:
    spec = coco_folder(tmp_path).write()
    (tmp_path / "pool.json").write_text(json.dumps(listing(["a0.png", "a1.png"])))
    with pytest.raises(DatasetRefused, match="2 images are in two roles"):
        ingest(replace(spec, unlabelled="pool.json"))


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.test["images"] = []
    with pytest.raises(DatasetRefused, match=r"test\.json: lists no image"):
        ingest(folder.write())


def test_a_split_without_a_usable_image_gives_the_first_reason(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.add_image("t0.png", b"")
    (tmp_path / "images" / "t1.png").unlink()
    with pytest.raises(DatasetRefused, match=r"no usable image.*t0\.png: is not an image"):
        ingest(folder.write())


def test_progress_ends_at_the_total(tmp_path: Path) -> None:
    reports: list[Progress] = []
    ingest(coco_folder(tmp_path).write(), reports.append)
    assert reports == [Progress("INGESTING", done, 6) for done in range(1, 7)]


def test_a_report_that_raises_stops_the_work(tmp_path: Path) -> None:
    def cancel(progress: Progress) -> None:
        raise KeyError(progress.done)

    with pytest.raises(KeyError, match="1"):
        ingest(coco_folder(tmp_path).write(), cancel)


def test_annotations_are_read_again_without_the_images(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    folder.annotate([30, 20, 20, 20], image_id=2, iscrowd=1)
    folder.add_image("a2.png", b"")
    got = ingest(folder.write(), created=5.0)
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    again = annotations_of(got.record, got.images)
    assert again.ids == got.annotations.ids
    assert again.image.tolist() == got.annotations.image.tolist() == [0, 1]
    assert again.boxes.tolist() == got.annotations.boxes.tolist()
    assert again.labels.tolist() == got.annotations.labels.tolist()
    assert again.ignore.tolist() == [False, True]
    assert got.record.created == 5.0


def test_annotation_files_that_changed_are_refused(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path)
    got = ingest(folder.write())
    del folder.train["images"][0]
    folder.write()
    with pytest.raises(DatasetRefused, match="have changed"):
        annotations_of(got.record, got.images)

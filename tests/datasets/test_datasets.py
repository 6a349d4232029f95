"""Real datasets, where they are at hand: the folder MGRAL_DATASETS names, or one beside the
repository.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mgral_service.datasets import ingest
from mgral_service.domain.specs import DatasetSpec

BESIDE = Path(__file__).parents[2].parent / "shared" / "datasets"


def real(name: str) -> str:
    root = Path(os.environ.get("MGRAL_DATASETS", BESIDE)) / name
    if not root.is_dir():
        pytest.skip(f"no {root}: set MGRAL_DATASETS to the folder that holds {name}")
    return str(root)


def test_vehicles_are_read_whole() -> None:
    got = ingest(DatasetSpec("vehicles", real("vehicles_openimages"), test="test.json"))
    record = got.record
    assert record.classes == ("Ambulance", "Bus", "Car", "Motorcycle", "Truck")
    assert (record.labelled, record.test) == (439, 188)
    assert np.bincount(got.annotations.labels).tolist() == [126, 141, 651, 140, 136]
    assert (record.report.accepted_images, record.report.accepted_boxes) == (627, 1194)
    assert record.report.findings == ()


def test_both_forms_of_bccd_hold_the_same_boxes() -> None:
    root = real("bccd")
    coco = ingest(DatasetSpec("bccd", root, test="test.json"))
    voc = ingest(
        DatasetSpec(
            "bccd-voc", f"{root}/VOC", format="voc", labelled="trainval.txt", test="test.txt"
        )
    )
    voc_classes, coco_classes = voc.record.classes, coco.record.classes
    assert voc_classes == ("Platelets", "RBC", "WBC")
    assert coco_classes == ("RBC", "WBC", "Platelets")
    assert [(finding.record, finding.action) for finding in voc.record.report.findings] == [
        ("BloodImage_00338.xml object[12]", "refused"),
        ("BloodImage_00343.xml object[3]", "refused"),
    ]
    coco_files, voc_files = (
        [Path(image.file).stem for image in got.images.images] for got in (coco, voc)
    )
    assert coco_files == voc_files
    assert {(image.width, image.height) for image in voc.images.images} == {(640, 480)}
    a, b = coco.annotations, voc.annotations
    assert a.image.tolist() == b.image.tolist()
    assert len(a.boxes) == 4886
    np.testing.assert_allclose(2 * a.boxes, b.boxes, atol=0.021)
    assert [coco_classes[label] for label in a.labels] == [voc_classes[label] for label in b.labels]
    assert not b.ignore.any()


def test_reading_needs_no_torch() -> None:
    code = (
        "import sys, mgral_service.datasets, mgral_service.datasets.answers;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'sklearn', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

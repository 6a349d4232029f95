"""Small datasets made in a test's own folder."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mgral_service.domain.specs import DatasetSpec

CATEGORIES = [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}]
"""By id the dog comes first."""


def picture(seed: int, width: int = 40, height: int = 30, kind: str = "PNG") -> bytes:
    """The bytes of an image of noise; another seed, another image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@dataclass
class CocoFolder:
    """A COCO folder with `train.json` and `test.json`; change `train`, then `write`."""

    root: Path
    train: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)

    def write(self) -> DatasetSpec:
        for name, content in (("train.json", self.train), ("test.json", self.test)):
            (self.root / name).write_text(json.dumps(content))
        return DatasetSpec("pets", str(self.root), test="test.json")

    def add_image(self, name: str, data: bytes) -> None:
        path = self.root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def annotate(self, bbox: Any, image_id: Any = 1, category_id: Any = 7, **more: Any) -> None:
        number = len(self.train["annotations"]) + 100
        entry = {"id": number, "image_id": image_id, "category_id": category_id, "bbox": bbox}
        self.train["annotations"].append({**entry, **more})


def listing(names: Sequence[str], first_id: int = 1) -> dict[str, Any]:
    """A COCO file of images of 40 x 30 pixels without boxes."""
    return {
        "categories": [dict(entry) for entry in CATEGORIES],
        "images": [
            {"id": number, "file_name": name, "width": 40, "height": 30}
            for number, name in enumerate(names, first_id)
        ],
        "annotations": [],
    }


def coco_folder(root: Path, train: int = 4, test: int = 2) -> CocoFolder:
    """Images `a0.png` ... to train on, `t0.png` ... to test on; one cat in `a0.png`."""
    names = [f"a{index}.png" for index in range(train)]
    tests = [f"t{index}.png" for index in range(test)]
    folder = CocoFolder(root, listing(names), listing(tests))
    for seed, name in enumerate([*names, *tests]):
        folder.add_image(name, picture(seed))
    folder.annotate([10, 5, 20, 10])
    return folder


VOC_OBJECT = """<object><name>{label}</name><difficult>{difficult}</difficult><bndbox>
<xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def voc_object(label: str, *box: object, difficult: int = 0) -> str:
    return VOC_OBJECT.format(*box, label=label, difficult=difficult)


def voc_folder(root: Path, objects: dict[str, Sequence[str]], first: int = 0) -> DatasetSpec:
    """Images of 40 x 30 pixels by name, each with its objects; all in `train.txt`. The images are
    those of the seeds from `first` on.
    """
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for seed, (name, elements) in enumerate(objects.items(), first):
        (root / f"JPEGImages/{name}.jpg").write_bytes(picture(seed, kind="JPEG"))
        size = "<size><width>40</width><height>30</height></size>"
        text = f"<annotation>{size}{''.join(elements)}</annotation>"
        (root / f"Annotations/{name}.xml").write_text(text)
    (root / "ImageSets/Main/train.txt").write_text("\n".join(objects) + "\n")
    return DatasetSpec("pets", str(root), format="voc", labelled="train")

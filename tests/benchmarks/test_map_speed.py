"""What the speed benchmark of mAP compares, and that its numbers agree."""

import numpy as np
import pytest

from benchmarks import map_speed
from benchmarks.lib.harness import Options


def test_the_numbers_are_those_of_pycocotools(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(map_speed, "QUICK_IMAGES", 20)
    figures = map_speed.measure(Options(quick=True, device="cpu"))
    assert 0 <= figures["max_abs_difference"] <= 1e-9
    assert 0 < figures["ap"] < figures["ap50"] < 1
    assert figures["detections"] == 20 * map_speed.DETECTIONS
    assert figures["speedup"] == figures["pycocotools_seconds"] / figures["seconds"]
    assert figures["speedup_one_size"] > 0
    assert capsys.readouterr().out == ""


def test_scenes_are_a_long_tail_with_crowds_and_empty_images() -> None:
    detections, annotations = map_speed.scenes(1000)
    assert detections.ids == annotations.ids
    assert set(np.bincount(detections.image, minlength=1000)) == {map_speed.DETECTIONS}
    assert 6.5 < len(annotations.labels) / 1000 < 8
    assert len(np.unique(annotations.image)) < 1000
    assert 0 < annotations.ignore.mean() < 0.03
    shown = np.bincount(annotations.labels, minlength=map_speed.CLASSES)
    assert shown[0] > 10 * shown[40:].mean()
    assert len(np.unique(detections.scores)) < 1001 < len(detections.scores)
    sides = np.concatenate([annotations.boxes, detections.boxes])
    assert (sides[:, 2:] > sides[:, :2]).all()
    again, _ = map_speed.scenes(1000)
    assert np.array_equal(again.boxes, detections.boxes)

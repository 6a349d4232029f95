"""The exam of ArtifactStore."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mgral_service.domain.boxes import Detections, PoolPredictions
from mgral_service.domain.errors import InvalidInput, Unavailable
from mgral_service.store.artifacts import (
    FileArtifacts,
    arrays_to_predictions,
    predictions_to_arrays,
)


@pytest.fixture
def artifacts(tmp_path: Path) -> FileArtifacts:
    return FileArtifacts(tmp_path / "artifacts")


def test_arrays_and_metadata_come_back(artifacts: FileArtifacts) -> None:
    arrays = {
        "a": np.arange(6.0).reshape(2, 3).T,
        "b": np.array([], dtype=np.int64),
        "c": np.array(3, dtype=np.int32),
        "d": np.array([True, False]),
        "e": np.array([np.nan, np.inf], dtype=np.float32),
    }
    artifacts.put("cyc_1", "agent", arrays, {"winner": "mgral", "é": ""})
    got = pickle.loads(pickle.dumps(artifacts)).get("cyc_1", "agent")
    assert got is not None
    assert got[1] == {"winner": "mgral", "é": ""}
    assert got[0].keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[0][name], array)
        assert got[0][name].dtype == array.dtype


def test_the_last_one_written_counts(artifacts: FileArtifacts) -> None:
    for value in (1.0, 2.0):
        artifacts.put("cyc_1", "agent", {"a": np.array([value])}, {})
    got = artifacts.get("cyc_1", "agent")
    assert got is not None
    assert got[0]["a"][0] == 2.0
    folder = artifacts.path("cyc_1", "agent").parent
    assert [path.name for path in folder.iterdir()] == ["agent.safetensors"]
    assert load_file(folder / "agent.safetensors")["a"][0] == 2.0


def test_none_where_there_is_none(artifacts: FileArtifacts) -> None:
    assert artifacts.get("cyc_1", "agent") is None


@pytest.mark.parametrize("keep", [0, 4, 12, 100, -1])
def test_a_short_file_counts_as_none(artifacts: FileArtifacts, keep: int) -> None:
    artifacts.put("cyc_1", "agent", {"a": np.arange(100.0)}, {})
    path = artifacts.path("cyc_1", "agent")
    path.write_bytes(path.read_bytes()[:keep])
    assert artifacts.get("cyc_1", "agent") is None


def test_a_changed_byte_counts_as_none(artifacts: FileArtifacts) -> None:
    artifacts.put("cyc_1", "agent", {"a": np.arange(100.0)}, {"word": "one"})
    path = artifacts.path("cyc_1", "agent")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert artifacts.get("cyc_1", "agent") is None
    path.write_bytes(whole.replace(b"one", b"two"))
    assert artifacts.get("cyc_1", "agent") is None


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "/etc/passwd", "a\0b", ".hidden"])
def test_names_stay_in_the_folder(artifacts: FileArtifacts, name: str) -> None:
    for cycle, artifact in ((name, "agent"), ("cyc_1", name)):
        with pytest.raises(InvalidInput):
            artifacts.put(cycle, artifact, {}, {})
        with pytest.raises(InvalidInput):
            artifacts.get(cycle, artifact)


def test_a_place_that_takes_no_files_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Unavailable):
        FileArtifacts(tmp_path / "file").put("cyc_1", "agent", {}, {})


def test_predictions_come_back(artifacts: FileArtifacts) -> None:
    ids = ("img_a", "img_b")
    detections = Detections(
        ids,
        np.array([1, 1]),
        np.array([[1.0, 2, 3, 4], [5, 6, 7, 8]]),
        np.array([0, 2]),
        np.array([0.5, 0.25]),
        np.full((2, 4), 0.25),
    )
    predictions = PoolPredictions(ids, np.eye(2), detections, {"loss": np.array([1.0, 2.0])})
    artifacts.put("cyc_1", "predictions", *predictions_to_arrays(predictions))
    stored = artifacts.get("cyc_1", "predictions")
    assert stored is not None
    got = arrays_to_predictions(*stored)
    assert got.ids == got.detections.ids == ids
    np.testing.assert_array_equal(got.embeddings, predictions.embeddings)
    for name in ("image", "boxes", "labels", "scores", "probs"):
        np.testing.assert_array_equal(getattr(got.detections, name), getattr(detections, name))
    assert got.columns.keys() == {"loss"}
    np.testing.assert_array_equal(got.columns["loss"], [1.0, 2.0])

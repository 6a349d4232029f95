"""A pool of files, predicted and scored by Ray Data, against the same in one process."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc  # type: ignore[import-untyped]
import pytest
import torch
from pyarrow import parquet

from mgral_service.agent.policy import Policy, score, weights_of
from mgral_service.cli import scan as cli
from mgral_service.cluster import pool
from mgral_service.cluster.pool import (
    Actors,
    Refused,
    place_of,
    predict_pool,
    refused,
    summarise_pool,
)
from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.boxes import Detections, PoolPredictions
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.value.features import agent_state
from mgral_service.domain.value.transport import standardise
from tests.cluster.predictor import IdPredictor
from tests.doubles import CLASSES, ids, predictions

# Ray Data warns of its own settings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")

IDS = ids(14)
GONE, BROKEN = 3, 7
READABLE = tuple(image_id for index, image_id in enumerate(IDS) if index not in (GONE, BROKEN))


def no_predictor() -> IdPredictor:
    raise AssertionError


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the cluster wrote and refused."""

    folder: str
    uris: tuple[str, ...]
    refused: tuple[Refused, ...]

    @property
    def images(self) -> list[tuple[str, str]]:
        return list(zip(IDS, self.uris, strict=True))


@pytest.fixture(scope="module")
def predicted(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Predicted:
    folder = tmp_path_factory.mktemp("a pool")
    files = [folder / image_id for image_id in IDS]
    for file in files:
        file.write_bytes(b"an image")
    files[GONE].unlink()
    files[BROKEN].write_bytes(b"a text")
    uris = tuple(file.as_uri() for file in files)
    out = (folder / "predictions").as_uri()
    factory = partial(IdPredictor, str(folder / "log"))
    lost = predict_pool(list(zip(IDS, uris, strict=True)), factory, out, Actors(), 5)
    return Predicted(out, uris, lost)


def predictions_in(folder: str) -> PoolPredictions:
    """In the order given to `predict_pool`."""
    store, path = place_of(folder)
    table = parquet.read_table(path, filesystem=store, filters=pc.field("cause").is_null())
    rows = table.sort_by("position")
    ids, flat = tuple(rows["id"].to_pylist()), {}
    for name in ("boxes", "labels", "scores", "probs"):
        flat[name] = pc.list_flatten(rows[name]).to_numpy()
    image = np.repeat(np.arange(len(ids)), pc.list_value_length(rows["scores"]).to_numpy())
    boxes, probs = flat["boxes"].reshape(-1, 4), flat["probs"].reshape(len(image), -1)
    detections = Detections(ids, image, boxes, flat["labels"], flat["scores"], probs)
    return PoolPredictions(ids, np.stack(rows["embedding"].to_pylist()), detections)


@pytest.mark.cluster
def test_the_predictions_are_those_of_one_process(predicted: Predicted) -> None:
    got, wanted = predictions_in(predicted.folder), predictions(READABLE)
    assert got.ids == got.detections.ids == READABLE
    np.testing.assert_allclose(got.embeddings, wanted.embeddings, atol=1e-5)
    for name in ("image", "boxes", "labels", "scores", "probs"):
        ours, theirs = getattr(got.detections, name), getattr(wanted.detections, name)
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.cluster
def test_unreadable_images_are_refused_by_their_uri_and_the_others_stay(
    predicted: Predicted,
) -> None:
    assert [image.id for image in predicted.refused] == [IDS[GONE], IDS[BROKEN]]
    gone, broken = (image.cause for image in predicted.refused)
    assert gone.startswith(f"{predicted.uris[GONE]}: cannot be read: ")
    assert broken == f"{predicted.uris[BROKEN]}: is no image"
    assert refused(predicted.folder) == predicted.refused


@pytest.mark.cluster
def test_states_are_summarised_part_by_part(predicted: Predicted) -> None:
    def total(part: FloatArray) -> FloatArray:
        assert len(part) <= 4
        return np.asarray(part.sum(axis=0))

    parts = list(summarise_pool(predicted.folder, "full", total, 4))
    assert len(parts) > 1
    states = agent_state(predictions(READABLE), len(CLASSES), "full")
    np.testing.assert_allclose(sum(parts), states.sum(axis=0), atol=1e-4)


@pytest.mark.cluster
def test_a_scan_of_what_was_predicted_takes_the_best_of_one_walk(
    predicted: Predicted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In two chunks; and predicts nothing again."""
    monkeypatch.setattr(cli, "LANES", 2)
    embeddings = predictions(READABLE).embeddings
    weights = weights_of(Policy(embeddings.shape[1], torch.Generator().manual_seed(0)), lane=3)
    agent = cli.CycleAgent(no_predictor, weights, "embedding", "agent")
    scanned = cli.scan(predicted.images, agent, 5, predicted.folder, Actors())
    scores = score(weights, standardise(embeddings))
    best = np.argsort(-scores)[:5]
    assert [image_id for image_id, _, _ in scanned.images] == [READABLE[index] for index in best]
    assert [rated for _, _, rated in scanned.images] == pytest.approx(scores[best], abs=1e-5)
    assert dict(predicted.images).items() >= {(name, uri) for name, uri, _ in scanned.images}
    assert scanned.refused == predicted.refused


@pytest.mark.cluster
def test_a_folder_of_another_pool_is_refused(predicted: Predicted) -> None:
    with pytest.raises(InvalidInput, match="give an empty folder"):
        predict_pool([("a", predicted.uris[0])], no_predictor, predicted.folder, Actors())


@pytest.mark.cluster
def test_an_interrupted_prediction_goes_on(predicted: Predicted, tmp_path: Path) -> None:
    """And a list may grow at its end."""
    out = (tmp_path / "predictions").as_uri()
    first, second = (partial(IdPredictor, str(tmp_path / name)) for name in ("first", "second"))
    predict_pool(predicted.images[:5], first, out, Actors(), 5)
    lost = predict_pool(predicted.images, second, out, Actors(), 5)
    asked = (tmp_path / "second").read_text().split()
    assert sorted(asked) == [image_id for image_id in READABLE if image_id >= IDS[5]]
    assert lost == predicted.refused
    assert predictions_in(out).ids == READABLE
    torn = next((tmp_path / "predictions").glob("*.parquet"))
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(InvalidInput, match="delete it, and go on"):
        predict_pool(predicted.images, no_predictor, out, Actors())


@pytest.mark.cluster
def test_actors_that_fill_the_cluster_are_refused(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="ask for fewer"):
        predict_pool([("a", "/a.png")], no_predictor, str(tmp_path / "out"), Actors(1000))


def test_a_file_too_large_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x" * 2_000_001)
    monkeypatch.setattr(pool, "MOST_FILE_BYTES", 2_000_000)
    assert pool._content(str(tmp_path / "a.mp4")) == (
        None,
        f"{tmp_path}/a.mp4: is larger than 2 MB",
    )


def test_no_images_need_no_cluster(tmp_path: Path) -> None:
    assert predict_pool([], no_predictor, str(tmp_path / "out"), Actors()) == ()


def test_a_store_is_opened_once_for_all_its_files() -> None:
    first, path = place_of("s3://bucket/a%20folder/1.jpg?region=eu-west-1")
    second, _ = place_of("s3://bucket/2.jpg?region=eu-west-1")
    assert path == "bucket/a folder/1.jpg"
    assert first is second
    assert first.region == "eu-west-1"


def test_a_file_has_a_uri_or_an_absolute_path(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "a b"), (tmp_path / "a b").as_uri()):
        assert place_of(uri)[1] == str(tmp_path / "a b")

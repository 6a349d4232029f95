"""A pool of image files, seen and scored by Ray Data, against the same in one process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mgral_service.agent.policy import Policy, score, weights_of
from mgral_service.agent.streaming import Best, Moments, lane_scorer, lane_steps
from mgral_service.cluster import pool
from mgral_service.cluster.pool import (
    Actors,
    Refused,
    observation_in,
    observe_pool,
    place_of,
    refused,
    score_pool,
    summarise_pool,
)
from mgral_service.datasets.images import squeezed
from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors.local import TaskDetector
from mgral_service.detectors.observer import DetectorObserver
from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.features import agent_state
from mgral_service.domain.specs import AgentState, DetectorSpec
from mgral_service.domain.transport import standardise
from mgral_service.metrics import METRICS
from mgral_service.scan import Trained, scan
from tests.detectors.tiny import CLASSES, SIDE, squares

# Ray Data warns of its own settings.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")

IMAGES, TRUTH = squares(14)
SPEC = DetectorSpec(size=SIDE, steps=40, batch=4)
GONE, BROKEN = 3, 7
KEPT = tuple(name for at, name in enumerate(IMAGES.ids) if at not in (GONE, BROKEN))
LANE = 3


@dataclass(frozen=True, slots=True)
class Seen:
    """What the cluster wrote and refused, and what one process sees in the same files."""

    folder: str
    uris: tuple[str, ...]
    refused: tuple[Refused, ...]
    local: PoolObservation
    factory: Callable[[], DetectorObserver]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Seen:
    folder = tmp_path_factory.mktemp("a pool")
    files = [folder / f"{name}.png" for name in IMAGES.ids]
    for file, pixels in zip(files, IMAGES.pixels, strict=True):
        Image.fromarray(pixels.transpose(1, 2, 0)).resize((2 * SIDE, SIDE)).save(file)
    squeeze = [squeezed(Image.open(file), SIDE) for file in files]
    store = ImageStore(IMAGES.ids, np.stack(squeeze), IMAGES.sizes, IMAGES.position)
    detector = TaskDetector(SPEC, CLASSES, store, METRICS["ap50"](), seed=0)
    detector.fit(TRUTH, lambda progress: None)
    files[GONE].unlink()
    files[BROKEN].write_bytes(b"no image")
    uris = tuple(file.as_uri() for file in files)
    out = (folder / "seen").as_uri()
    factory = partial(DetectorObserver, SPEC, CLASSES, detector.state())
    lost = observe_pool(list(zip(IMAGES.ids, uris, strict=True)), factory, out, Actors(), 5)
    return Seen(out, uris, lost, detector.observe(KEPT, lambda progress: None), factory)


@pytest.mark.cluster
def test_the_cluster_sees_what_one_process_sees(seen: Seen) -> None:
    found, wanted = observation_in(seen.folder), seen.local
    assert found.ids == found.detections.ids == KEPT
    np.testing.assert_allclose(found.embeddings, wanted.embeddings, atol=1e-5)
    assert len(wanted.detections.image) > 0
    for name in ("image", "boxes", "labels", "scores", "probs"):
        ours, theirs = getattr(found.detections, name), getattr(wanted.detections, name)
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.cluster
def test_unreadable_images_are_refused_by_their_uri_and_the_others_stay(seen: Seen) -> None:
    assert [one.id for one in seen.refused] == [IMAGES.ids[GONE], IMAGES.ids[BROKEN]]
    gone, broken = (one.cause for one in seen.refused)
    assert gone.startswith(f"{seen.uris[GONE]}: cannot be read: ")
    assert broken.startswith(f"{seen.uris[BROKEN]}: is not an image of a known format")
    assert refused(seen.folder) == seen.refused


@pytest.mark.cluster
@pytest.mark.parametrize("state", ["embedding", "full"])
def test_the_scores_are_those_of_one_walk(seen: Seen, state: AgentState) -> None:
    states = agent_state(seen.local, len(CLASSES), state)
    policy = Policy(states.shape[1], torch.Generator().manual_seed(0))
    weights = weights_of(policy, LANE)
    first, *others = summarise_pool(seen.folder, state, Moments.of, 4)
    assert len(others) > 0
    scale = sum(others, first).scale
    steps = lane_steps(len(KEPT), LANE)
    best = Best(len(KEPT))
    scorer = partial(lane_scorer, weights, scale, steps)
    parts = score_pool(seen.folder, state, scorer, 2 * steps, Actors())
    for positions, scores in parts:
        best.add(positions, scores)
    wanted = dict(zip(KEPT, score(weights, standardise(states)), strict=True))
    found = {IMAGES.ids[at]: one for at, one in zip(best.positions, best.scores, strict=True)}
    assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.cluster
def test_what_was_seen_is_not_looked_at_again(seen: Seen) -> None:
    points = seen.local.embeddings
    weights = weights_of(Policy(points.shape[1], torch.Generator().manual_seed(0)), LANE)
    images = list(zip(IMAGES.ids, seen.uris, strict=True))
    trained = Trained(_no_observer, weights, "embedding", "agent")
    found = scan(images, trained, 5, seen.folder, Actors())
    scores = score(weights, standardise(points))
    wanted = [KEPT[at] for at in np.argsort(-scores)[:5]]
    assert [name for name, _, _ in found.images] == wanted
    assert [uri for _, uri, _ in found.images] == [dict(images)[name] for name in wanted]
    assert found.refused == seen.refused


@pytest.mark.cluster
def test_a_folder_of_another_pool_is_refused(seen: Seen) -> None:
    with pytest.raises(InvalidInput, match="give an empty folder"):
        observe_pool([("a", seen.uris[0])], _no_observer, seen.folder, Actors())


@pytest.mark.cluster
def test_an_interrupted_observation_goes_on(seen: Seen, tmp_path: Path) -> None:
    """And a list may grow at its end."""
    images = list(zip(IMAGES.ids, seen.uris, strict=True))
    out = (tmp_path / "seen").as_uri()
    observe_pool(images[:5], seen.factory, out, Actors(), 5)
    lost = observe_pool(
        images, partial(_Noting, seen.factory, str(tmp_path / "asked")), out, Actors()
    )
    asked = (tmp_path / "asked").read_text().split()
    assert sorted(asked) == sorted(name for name in KEPT if IMAGES.position[name] >= 5)
    assert lost == seen.refused
    assert observation_in(out).ids == KEPT
    (torn,) = {next((tmp_path / "seen").glob("*.parquet"))}
    torn.write_bytes(torn.read_bytes()[:100])
    with pytest.raises(InvalidInput, match="delete it, and go on"):
        observe_pool(images, _no_observer, out, Actors())


@pytest.mark.cluster
def test_actors_that_fill_the_cluster_are_refused(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="ask for fewer"):
        observe_pool([("a", "/a.png")], _no_observer, str(tmp_path / "seen"), Actors(1000))


def test_a_file_too_large_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"x" * 2_000_001)
    monkeypatch.setattr(pool, "MOST_FILE_BYTES", 2_000_000)
    assert pool._content(str(tmp_path / "a.mp4")) == (
        None,
        f"{tmp_path}/a.mp4: is larger than 2 MB",
    )


class _Noting:
    """An observer that notes what it is asked."""

    def __init__(self, factory: Callable[[], DetectorObserver], file: str) -> None:
        self._inner, self._file = factory(), file

    def decode(self, data: bytes, uri: str) -> Any:
        return self._inner.decode(data, uri)

    def observe(self, ids: Sequence[str], images: Sequence[Any]) -> PoolObservation:
        with Path(self._file).open("a") as file:
            file.write(" ".join((*ids, "")))
        return self._inner.observe(ids, images)


def _no_observer() -> DetectorObserver:
    raise AssertionError


def test_no_images_need_no_cluster(tmp_path: Path) -> None:
    assert observe_pool([], _no_observer, str(tmp_path / "seen"), Actors()) == ()


def test_a_store_is_opened_once_for_all_its_files() -> None:
    first, path = place_of("s3://bucket/a%20folder/1.jpg?region=eu-west-1")
    second, _ = place_of("s3://bucket/2.jpg?region=eu-west-1")
    assert path == "bucket/a folder/1.jpg"
    assert first is second
    assert first.region == "eu-west-1"


def test_a_file_has_a_uri_or_an_absolute_path(tmp_path: Path) -> None:
    for uri in (str(tmp_path / "a b"), (tmp_path / "a b").as_uri()):
        assert place_of(uri)[1] == str(tmp_path / "a b")

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
import ray

from mgral_service.cluster.proxies import RayProxyTrainer, cause_of, processors
from mgral_service.domain.errors import Unavailable
from mgral_service.domain.ports import NOTHING, Weights
from mgral_service.domain.records import ProxyResult, ProxySpec

pytestmark = pytest.mark.cluster


class TenthTrainer:
    """Scores are index / 10; each trial leaves its process id."""

    def __init__(self, marks: Path) -> None:
        self._marks = marks

    def train(
        self, specs: Sequence[ProxySpec], starts: Mapping[int, Weights] = NOTHING
    ) -> Iterator[ProxyResult]:
        for spec in specs:
            (self._marks / f"trained-{spec.index}").write_text(f"{os.getpid()}")
            yield ProxyResult(spec.index, spec.index / 10, 0.5)


SPECS = [ProxySpec(index, (), (), 0) for index in range(6)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """Where six proxies left their marks, their results and Tune's folder."""
    folder = tmp_path_factory.mktemp("proxies")
    trainer = RayProxyTrainer(partial(TenthTrainer, folder), 2, 1.0, 0.0, 1, folder / "tune")
    scores = {result.index: result.score for result in trainer.train(SPECS)}
    (folder / "scores").write_text(" ".join(f"{scores[index]}" for index in sorted(scores)))
    return folder


def test_every_proxy_gives_its_score(trained: Path) -> None:
    assert (trained / "scores").read_text() == "0.0 0.1 0.2 0.3 0.4 0.5"


def test_actors_outlive_their_trials(trained: Path) -> None:
    pids = {mark.read_text() for mark in trained.glob("trained-*")}
    assert 1 <= len(pids) <= 2


def test_ray_keeps_nothing_that_the_proxies_were_given(trained: Path) -> None:
    """A copy of all images in its object store for every table otherwise."""
    hooks = ray._private.worker._post_init_hooks
    assert not [one for one in hooks if "_ParameterRegistry" in repr(one)]


def test_a_proxy_leaves_no_checkpoint(trained: Path) -> None:
    assert list((trained / "tune").rglob("checkpoint_*")) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, ray_cluster: None) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "tune"
    trainer = RayProxyTrainer(partial(TenthTrainer, tmp_path), 1, 1.0, 0.0, 0, folder)
    with pytest.raises(Unavailable, match=r"the disk of .*/file/tune"):
        list(trainer.train(SPECS))


def test_processors_are_those_that_ray_was_given(ray_cluster: None) -> None:
    assert processors() == 2


def test_no_specs_need_no_cluster(tmp_path: Path) -> None:
    trainer = RayProxyTrainer(partial(TenthTrainer, tmp_path), 1, 1.0, 0.0, 0, tmp_path)
    assert list(trainer.train([])) == []


HEAD = "Failure # 1 (occurred at 2026-01-01_00-00-00)\n"
MEMORY = "lower detector.batch or table.actors, or give actors more memory"


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            "ray::ProxyTrial.train() (pid=7)\n  File ...\nmgral_service.domain.errors.ProxyFailed: "
            "proxy 3 failed: OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.\n",
            f"OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB.; {MEMORY}",
        ),
        (
            "ProxyFailed: proxy 0 failed: OSError: [Errno 28] No space left on device\n",
            "OSError: [Errno 28] No space left on device; free space on that disk",
        ),
        (
            "Task was killed due to the node running low on memory.\nMemory on the node ...\n",
            f"Task was killed due to the node running low on memory; {MEMORY}",
        ),
        (
            "The actor died unexpectedly before finishing this task.\n\tclass_name: ProxyTrial\n",
            "The actor died unexpectedly before finishing this task; if it was killed for its "
            f"memory, {MEMORY}",
        ),
    ],
)
def test_a_cause_is_one_line_with_what_to_do(tmp_path: Path, text: str, cause: str) -> None:
    file = tmp_path / "error.txt"
    file.write_text(HEAD + "an older one\n" + HEAD.replace("1", "2", 1) + text)
    assert cause_of(str(file)) == cause


def test_an_actor_that_left_no_word_has_a_cause_as_well(tmp_path: Path) -> None:
    file = tmp_path / "error.txt"
    assert cause_of(str(file)) == "the actor ended without a word"
    file.write_text(HEAD + "\n")
    assert cause_of(str(file)) == "the actor ended without a word"

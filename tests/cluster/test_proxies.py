import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from mgral_service.cluster.proxies import RayProxyTrainer
from mgral_service.domain.records import ProxyResult, ProxySpec

pytestmark = pytest.mark.cluster


class ScriptedTrainer:
    """Scores are index / 10; what goes wrong is told by the index and a folder of marks."""

    def __init__(self, marks: Path) -> None:
        self._marks = marks
        self._made = time.time_ns()

    def train(self, specs: Sequence[ProxySpec]) -> Iterator[ProxyResult]:
        for spec in specs:
            with (self._marks / f"tried-{spec.index}").open("a") as mark:
                mark.write(f"{os.getpid()}\n")
            tries = len((self._marks / f"tried-{spec.index}").read_text().split())
            if spec.index == 2:
                raise ValueError("this batch can never be trained")
            if spec.index == 3:
                yield ProxyResult(spec.index, None, 0.0, "the loss is not finite")
            elif spec.index == 4 and tries == 1:
                os._exit(9)  # as an actor that runs out of memory ends
            else:
                yield ProxyResult(spec.index, spec.index / 10, 0.5)


@pytest.fixture(scope="module")
def results(
    tmp_path_factory: pytest.TempPathFactory, ray_cluster: None
) -> tuple[dict[int, ProxyResult], Path]:
    folder = tmp_path_factory.mktemp("proxies")
    trainer = RayProxyTrainer(
        partial(ScriptedTrainer, folder), 2, 1.0, 0.0, max_failures=1, folder=folder / "tune"
    )
    specs = [ProxySpec(index, (), (), 0) for index in range(6)]
    return {result.index: result for result in trainer.train(specs)}, folder


def test_every_proxy_gives_one_result(results: tuple[dict[int, ProxyResult], Path]) -> None:
    found, _ = results
    assert sorted(found) == list(range(6))
    assert [found[index].score for index in (0, 1, 5)] == [0.0, 0.1, 0.5]


def test_a_proxy_that_always_fails_is_tried_again_and_then_keeps_its_first_cause(
    results: tuple[dict[int, ProxyResult], Path],
) -> None:
    found, folder = results
    assert found[2].score is None
    assert found[2].cause is not None
    assert "this batch can never be trained" in found[2].cause
    assert found[3].cause is not None
    assert "the loss is not finite" in found[3].cause
    assert len((folder / "tried-2").read_text().split()) == 2


def test_a_proxy_whose_actor_dies_is_trained_by_another(
    results: tuple[dict[int, ProxyResult], Path],
) -> None:
    found, folder = results
    assert found[4].score == 0.4
    first, second = (folder / "tried-4").read_text().split()
    assert first != second


def test_actors_outlive_their_trials(results: tuple[dict[int, ProxyResult], Path]) -> None:
    _, folder = results
    pids = {pid for mark in folder.glob("tried-*") for pid in mark.read_text().split()}
    trials = sum(len(mark.read_text().split()) for mark in folder.glob("tried-*"))
    assert len(pids) < trials


def test_no_specs_need_no_cluster(tmp_path: Path) -> None:
    trainer = RayProxyTrainer(partial(ScriptedTrainer, tmp_path), 1, 1.0, 0.0, 0, tmp_path)
    assert list(trainer.train([])) == []

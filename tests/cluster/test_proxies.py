"""One table on real actors: proxies that go well beside proxies that each have their own fault."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import ray

from mgral_service.cluster.proxies import RayProxyTrainer, cause_of, processors
from mgral_service.domain.errors import DatasetRefused, Unavailable
from mgral_service.domain.ports import NOTHING, Weights
from mgral_service.domain.records import ProxyResult, ProxySpec
from tests.fakes import proxy_spec

pytestmark = pytest.mark.cluster

TRIES = 2  # max_failures 1
START = 10.0  # the weight that proxies start from


class Diverged(Exception):
    """Becomes a result without score, as a detector gives one."""


def diverge() -> None:
    raise Diverged("the loss is not finite: lower detector.learning_rate")


def meet_a_corrupt_image() -> None:
    raise DatasetRefused("images/0007.jpg", "is cut off: restore it")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def want_memory() -> None:
    np.empty(2**57)  # an exbibyte


def lose_the_store() -> None:
    raise Unavailable("the store", "connection refused")


FAULTS: Mapping[int, Sequence[Callable[[], None]]] = {
    1: [diverge],
    2: [meet_a_corrupt_image],
    3: [die],
    4: [die, die],
    5: [want_memory, lose_the_store],
}
"""Of a proxy, in the order of its tries; then it goes well."""


class FaultyTrainer:
    """Scores are (index + its fold's start) / 100, once a proxy has no fault left; each try leaves
    its process id.
    """

    def __init__(self, marks: Path) -> None:
        self._marks = marks

    def train(
        self, specs: Sequence[ProxySpec], starts: Mapping[int | None, Weights] = NOTHING
    ) -> Iterator[ProxyResult]:
        for spec in specs:
            with (self._marks / f"{spec.index}").open("a") as mark:
                mark.write(f"{os.getpid()}\n")
            tries = len(pids(self._marks, spec.index))
            try:
                for fault in FAULTS.get(spec.index, ())[tries - 1 : tries]:
                    fault()
            except Diverged as error:
                yield ProxyResult(spec.index, None, 0.0, str(error))
            else:
                start = starts[spec.fold]["weight"].item()
                yield ProxyResult(spec.index, (spec.index + start) / 100, 0.5)


def pids(marks: Path, index: int) -> list[str]:
    return (marks / f"{index}").read_text().split()


@dataclass(frozen=True, slots=True)
class Outcome:
    """All results in the order they came, the processes that tried a proxy, and Tune's folder."""

    results: tuple[ProxyResult, ...]
    marks: Path
    folder: Path

    def of(self, index: int) -> ProxyResult:
        (result,) = (result for result in self.results if result.index == index)
        return result

    def cause(self, index: int) -> str:
        assert self.of(index).score is None
        return self.of(index).cause or ""

    def tries(self, index: int) -> list[str]:
        return pids(self.marks, index)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Outcome:
    marks = tmp_path_factory.mktemp("marks")
    folder = tmp_path_factory.mktemp("tune")
    trainer = RayProxyTrainer(partial(FaultyTrainer, marks), 2, 1.0, 0.0, TRIES - 1, folder)
    specs = [proxy_spec(index) for index in range(7)]
    starts: Mapping[int | None, Weights] = {0: {"weight": np.array(START)}}
    return Outcome(tuple(trainer.train(specs, starts)), marks, folder)


def test_every_proxy_gives_one_result_whatever_its_neighbours_do(outcome: Outcome) -> None:
    assert sorted(result.index for result in outcome.results) == list(range(7))
    assert (outcome.of(0).score, outcome.of(6).score) == (0.1, 0.16)
    assert outcome.of(6).duration_s == 0.5


def test_actors_outlive_their_trials(outcome: Outcome) -> None:
    faultless = {*outcome.tries(0), *outcome.tries(1), *outcome.tries(2), *outcome.tries(6)}
    assert len(faultless) < 4


def test_a_loss_that_is_no_number_is_final_at_the_first_time(outcome: Outcome) -> None:
    assert "lower detector.learning_rate" in outcome.cause(1)
    assert len(outcome.tries(1)) == 1


def test_a_corrupt_image_fails_its_proxy_and_is_named(outcome: Outcome) -> None:
    assert outcome.cause(2) == "DatasetRefused: images/0007.jpg: is cut off: restore it"
    assert len(outcome.tries(2)) == 1


def test_a_killed_actor_is_replaced(outcome: Outcome) -> None:
    assert outcome.of(3).score == 0.13
    first, second = outcome.tries(3)
    assert first != second


def test_a_proxy_that_kills_every_actor_has_failed(outcome: Outcome) -> None:
    assert outcome.cause(4).startswith("The actor died unexpectedly")
    assert "give actors more memory" in outcome.cause(4)
    assert len(outcome.tries(4)) == TRIES


def test_the_first_of_two_causes_is_kept_with_what_to_do(outcome: Outcome) -> None:
    assert "MemoryError: Unable to allocate 1.00 EiB" in outcome.cause(5)
    assert outcome.cause(5).endswith(
        "; lower detector.batch or table.actors, or give actors more memory"
    )


def test_a_proxy_out_of_memory_starts_over_in_another_process(outcome: Outcome) -> None:
    first, second = outcome.tries(5)
    assert first != second


def test_no_failure_counts_as_a_preemption(outcome: Outcome) -> None:
    assert {result.interruptions for result in outcome.results} == {0}


def test_ray_keeps_nothing_that_the_proxies_were_given(outcome: Outcome) -> None:
    """A copy of all images in its object store for every table otherwise."""
    hooks = ray._private.worker._post_init_hooks
    assert not [hook for hook in hooks if "_ParameterRegistry" in repr(hook)]


def test_a_proxy_leaves_no_checkpoint(outcome: Outcome) -> None:
    assert list(outcome.folder.rglob("checkpoint_*")) == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, ray_cluster: None) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "tune"
    trainer = RayProxyTrainer(partial(FaultyTrainer, tmp_path), 1, 1.0, 0.0, 0, folder)
    with pytest.raises(Unavailable, match=r"the disk of .*/file/tune"):
        list(trainer.train([proxy_spec(0)]))


def test_processors_are_those_that_ray_was_given(ray_cluster: None) -> None:
    assert processors() == 2


def test_no_specs_need_no_cluster(tmp_path: Path) -> None:
    trainer = RayProxyTrainer(partial(FaultyTrainer, tmp_path), 1, 1.0, 0.0, 0, tmp_path)
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


def test_an_actor_that_left_no_error_has_a_cause_as_well(tmp_path: Path) -> None:
    file = tmp_path / "error.txt"
    assert cause_of(str(file)) == "the actor ended without an error"
    file.write_text(HEAD + "\n")
    assert cause_of(str(file)) == "the actor ended without an error"

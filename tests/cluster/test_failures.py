"""What goes wrong inside proxies: one table of them on real actors, each with its own fault."""

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from mgral_service.cluster.proxies import RayProxyTrainer
from mgral_service.domain.errors import DatasetRefused, Unavailable
from mgral_service.domain.ports import NOTHING, Weights
from mgral_service.domain.records import ProxyResult, ProxySpec

pytestmark = pytest.mark.cluster

TRIES = 2  # max_failures 1


def diverge() -> None:
    """A real detector whose learning rate leaves the numbers behind."""
    from mgral_service.detectors.local import LocalProxyTrainer
    from mgral_service.domain.specs import DetectorSpec, TableSpec
    from mgral_service.metrics import METRICS
    from tests.detectors.tiny import CLASSES, SIDE, squares

    images, truth = squares(8)
    spec = DetectorSpec(size=SIDE, batch=4)
    object.__setattr__(spec, "learning_rate", 1e30)  # no spec may say so
    shown = truth.subset(truth.ids[:6])
    scoring = truth.ids[4:6]
    table = TableSpec(steps=30)
    trainer = LocalProxyTrainer(spec, table, CLASSES, images, shown, scoring, METRICS["ap50"]())
    (result,) = trainer.train([ProxySpec(0, truth.ids[:4], truth.ids[6:], 0)])
    assert result.score is None
    raise _Given(result.cause)


class _Given(Exception):
    """A result without score."""


def meet_a_corrupt_image() -> None:
    raise DatasetRefused("images/0007.jpg", "is cut off: restore it")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def want_memory() -> None:
    np.empty(2**57)  # an exbibyte


def write_much() -> None:
    with Path("/dev/full").open("w") as file:  # the kernel's own full disk
        file.write("all is full")


def lose_the_store() -> None:
    raise Unavailable("the store", "connection refused")


FAULTS: Mapping[int, Sequence[Callable[[], None]]] = {
    1: [diverge],
    2: [meet_a_corrupt_image],
    3: [die],
    4: [die, die],
    5: [want_memory],
    6: [write_much],
    7: [want_memory, lose_the_store],
}
"""Of a proxy, in the order of its tries; then it goes well."""


class FaultyTrainer:
    """Scores are index / 10, once a proxy has no fault left; each try leaves its process id."""

    def __init__(self, marks: Path) -> None:
        self._marks = marks

    def train(
        self, specs: Sequence[ProxySpec], starts: Mapping[int, Weights] = NOTHING
    ) -> Iterator[ProxyResult]:
        for spec in specs:
            with (self._marks / f"{spec.index}").open("a") as mark:
                mark.write(f"{os.getpid()}\n")
            before = len(pids(self._marks, spec.index)) - 1
            try:
                for fault in FAULTS.get(spec.index, ())[before : before + 1]:
                    fault()
            except _Given as given:
                yield ProxyResult(spec.index, None, 0.0, str(given))
            else:
                yield ProxyResult(spec.index, spec.index / 10, 0.5)


def pids(marks: Path, index: int) -> list[str]:
    return (marks / f"{index}").read_text().split()


@dataclass(frozen=True, slots=True)
class Outcome:
    """All results in the order they came, and the processes that tried a proxy."""

    results: tuple[ProxyResult, ...]
    marks: Path

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
    specs = [ProxySpec(index, (), (), 0) for index in range(9)]
    return Outcome(tuple(trainer.train(specs)), marks)


def test_every_proxy_gives_one_result_whatever_its_neighbours_do(outcome: Outcome) -> None:
    assert sorted(result.index for result in outcome.results) == list(range(9))
    assert (outcome.of(0).score, outcome.of(8).score) == (0.0, 0.8)


def test_a_loss_that_is_no_number_is_final_at_the_first_time(outcome: Outcome) -> None:
    assert "lower detector.learning_rate" in outcome.cause(1)
    assert len(outcome.tries(1)) == 1


def test_a_corrupt_image_fails_its_proxy_and_is_named(outcome: Outcome) -> None:
    assert outcome.cause(2) == "DatasetRefused: images/0007.jpg: is cut off: restore it"
    assert len(outcome.tries(2)) == 1


def test_a_killed_actor_is_replaced(outcome: Outcome) -> None:
    assert outcome.of(3).score == 0.3
    first, second = outcome.tries(3)
    assert first != second


def test_a_proxy_that_kills_every_actor_has_failed(outcome: Outcome) -> None:
    assert outcome.cause(4).startswith("The actor died unexpectedly")
    assert "give actors more memory" in outcome.cause(4)
    assert len(outcome.tries(4)) == TRIES


def test_a_proxy_out_of_memory_starts_over_in_another_process(outcome: Outcome) -> None:
    assert outcome.of(5).score == 0.5
    first, second = outcome.tries(5)
    assert first != second


def test_a_full_disk_is_tried_again(outcome: Outcome) -> None:
    assert outcome.of(6).score == 0.6
    assert len(outcome.tries(6)) == 2


def test_the_first_of_two_causes_is_kept_with_what_to_do(outcome: Outcome) -> None:
    assert "MemoryError: Unable to allocate 1.00 EiB" in outcome.cause(7)
    assert outcome.cause(7).endswith(
        "; lower detector.batch or table.actors, or give actors more memory"
    )
    assert len(outcome.tries(7)) == TRIES


def test_no_failure_counts_as_a_preemption(outcome: Outcome) -> None:
    assert {result.interruptions for result in outcome.results} == {0}

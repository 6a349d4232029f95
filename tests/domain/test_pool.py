from __future__ import annotations

import numpy as np
import pytest

from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.pool import PoolSplit, carve_scoring, label, split_of
from mgral_service.domain.recipes import completed
from mgral_service.domain.records import DatasetImages
from mgral_service.domain.specs import CycleSpec

SPLIT = PoolSplit({"a": 0}, ("b", "c"), ("s",), ("t",))


@pytest.mark.parametrize(
    ("labelled", "unlabelled", "scoring", "test"),
    [
        ({"a": 0}, ("a",), (), ()),
        ({}, ("a",), ("a",), ()),
        ({}, (), ("a",), ("a",)),
        ({}, ("a", "a"), (), ()),
    ],
)
def test_an_image_has_one_role(
    labelled: dict[str, int],
    unlabelled: tuple[str, ...],
    scoring: tuple[str, ...],
    test: tuple[str, ...],
) -> None:
    with pytest.raises(InvalidInput, match="image a"):
        PoolSplit(labelled, unlabelled, scoring, test)


def test_labelling_moves_images_and_remembers_the_cycle() -> None:
    after = label(SPLIT, ["c"], 3)
    assert dict(after.labelled) == {"a": 0, "c": 3}
    assert after.unlabelled == ("b",)
    assert (after.scoring, after.test) == (("s",), ("t",))
    assert SPLIT.unlabelled == ("b", "c")


@pytest.mark.parametrize("name", ["a", "s", "t", "z"])
def test_only_unlabelled_images_can_be_labelled(name: str) -> None:
    with pytest.raises(InvalidInput, match=f"image {name}"):
        label(SPLIT, [name], 1)


@pytest.mark.parametrize(("count", "share", "expected"), [(10, 0.25, 2), (2, 0.9, 1), (4, 0.01, 1)])
def test_scoring_images_are_some_but_not_all(count: int, share: float, expected: int) -> None:
    ids = [f"i{number}" for number in range(count)]
    carved = carve_scoring(ids, share, np.random.default_rng(0))
    assert len(carved) == expected
    assert set(carved) < set(ids)
    assert carved == carve_scoring(reversed(ids), share, np.random.default_rng(0))


def test_one_labelled_image_is_too_few_to_carve() -> None:
    with pytest.raises(InvalidInput, match="two labelled images"):
        carve_scoring(["a"], 0.5, np.random.default_rng(0))


IMAGES = DatasetImages((), ("a", "e", "f", "g"), ("b", "c", "d"), (), ("t",))


def test_labels_of_later_cycles_move_images_in_order() -> None:
    answers = [Annotations.empty(["c"]), Annotations.empty(["b", "c"])]
    split = split_of(IMAGES, answers, CycleSpec("d", 1))
    assert dict(split.labelled) == {"a": 0, "e": 0, "f": 0, "g": 0, "c": 1, "b": 2}
    assert split.unlabelled == ("d",)
    assert split.scoring == ()


def test_the_paper_s_method_sets_scoring_images_apart_the_same_in_every_cycle() -> None:
    spec = CycleSpec(**completed({"dataset": "d", "budget": 1}), method="paper", choice="agent")
    first = split_of(IMAGES, [], spec)
    second = split_of(IMAGES, [Annotations.empty(["c"])], spec)
    assert len(first.scoring) == 1
    assert first.scoring == second.scoring
    assert not set(first.scoring) & set(second.labelled)


def test_named_scoring_images_are_those_of_either_method() -> None:
    images = DatasetImages((), ("a",), ("b",), ("s",))
    for method in (CycleSpec("d", 1), CycleSpec("d", 1, method="paper", choice="agent")):
        assert split_of(images, [], method).scoring == ("s",)

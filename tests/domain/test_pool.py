from __future__ import annotations

import numpy as np
import pytest

from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.pool import PoolSplit, carve_scoring, label, split_of
from mgral_service.domain.records import DatasetRecord, IngestReport
from mgral_service.domain.specs import DatasetSpec

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
    ids = [f"i{at}" for at in range(count)]
    carved = carve_scoring(ids, share, np.random.default_rng(0))
    assert len(carved) == expected
    assert set(carved) < set(ids)
    assert carved == carve_scoring(reversed(ids), share, np.random.default_rng(0))


def test_one_labelled_image_is_too_few_to_carve() -> None:
    with pytest.raises(InvalidInput, match="two labelled images"):
        carve_scoring(["a"], 0.5, np.random.default_rng(0))


def test_labels_of_later_cycles_move_images_in_order() -> None:
    dataset = DatasetRecord(
        DatasetSpec("d", "/data"),
        ("cat",),
        (),
        ("a",),
        ("b", "c", "d"),
        ("s",),
        ("t",),
        IngestReport(0, 0, 0, 0, 0, 0),
        0.0,
    )
    split = split_of(dataset, [Annotations.empty(["c"]), Annotations.empty(["b"])])
    assert dict(split.labelled) == {"a": 0, "c": 1, "b": 2}
    assert split.unlabelled == ("d",)

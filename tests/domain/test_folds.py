from __future__ import annotations

import numpy as np
import pytest

from mgral_service.domain.folds import LEAST_LABELLED, make_folds
from mgral_service.domain.pool import PoolSplit


def split_of(labelled: int, scoring: int = 0) -> PoolSplit:
    ids = tuple(f"img_{number:04d}" for number in range(labelled + scoring))
    return PoolSplit(dict.fromkeys(ids[:labelled], 0), ("open",), ids[labelled:])


def make(labelled: int = 100, folds: int = 6, budget: int = 50, seed: int = 0, scoring: int = 0):  # type: ignore[no-untyped-def]
    return make_folds(split_of(labelled, scoring), folds, budget, np.random.default_rng(seed))


def test_the_parts_of_a_fold_are_disjoint_and_all_labelled_images_have_one() -> None:
    for fold in make():
        parts = [set(fold.training), set(fold.candidates), set(fold.scoring)]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 100
        assert [len(part) for part in parts] == [37, 27, 36]
        assert fold.batch_size == 6


def test_candidate_parts_of_three_folds_in_a_row_share_no_image() -> None:
    folds = make()
    for first in (0, 3):
        parts = [set(fold.candidates) for fold in folds[first : first + 3]]
        assert len(set.union(*parts)) == 81
    assert folds[0].candidates != folds[3].candidates


def test_named_scoring_images_score_every_fold_and_labelled_ones_are_divided_in_two() -> None:
    for fold in make(scoring=9):
        assert len(fold.scoring) == 9
        assert len(fold.training) + len(fold.candidates) == 100


@pytest.mark.parametrize("labelled", [LEAST_LABELLED, 13, 17, 40])
def test_small_sets_leave_no_part_empty(labelled: int) -> None:
    for fold in make(labelled):
        assert fold.training
        assert fold.candidates
        assert fold.scoring
        assert 1 <= fold.batch_size <= len(fold.candidates)


def test_too_few_images_make_no_fold_and_a_batch_is_at_most_the_budget() -> None:
    assert make(LEAST_LABELLED - 1) == ()
    assert make(budget=2)[0].batch_size == 2


def test_the_same_rng_gives_the_same_folds() -> None:
    assert make() == make()
    assert make() != make(seed=1)

from __future__ import annotations

from collections import Counter

import pytest

from mgral_service.domain.records import ProxySpec
from mgral_service.domain.specs import CycleSpec, TableAdvanced, TableSpec
from mgral_service.strategies import CLASSICAL
from mgral_service.strategies.mgral.plan import plan_proxies
from tests.domain.pools import pool_of

POOL = pool_of(60, 12, 7)
FOLDS = [pool_of(40, 14, 5, fold, seed=fold + 1) for fold in range(3)]
PICKS = {name: rule.pick for name, rule in CLASSICAL.items()}


def plan(records: int = 60, design: str = "tilted", seed: int = 0) -> list[ProxySpec]:
    advanced = TableAdvanced(design=design)  # type: ignore[arg-type]
    table = TableSpec(records=records, folds=3, advanced=advanced)
    return plan_proxies(CycleSpec("d", 7, seed=seed, table=table), POOL, FOLDS, PICKS)


def test_each_fold_has_uniform_batches_every_candidate_and_tilted_ones() -> None:
    specs = plan()
    assert [spec.index for spec in specs] == list(range(57))  # the agent's are to come
    for fold in range(3):
        own = Counter(spec.role for spec in specs if spec.fold == fold)
        assert own == {"uniform": 3, "candidate": 7, "tilted": 9}
        chosen_by = {spec.chosen_by for spec in specs if spec.fold == fold}
        assert chosen_by == {*CLASSICAL, "tilted"}


@pytest.mark.parametrize("records", [12, 13, 24])
def test_a_small_table_has_the_first_candidates(records: int) -> None:
    specs = plan(records)
    assert len(specs) == records - 3
    for fold in range(3):
        own = [spec.chosen_by for spec in specs if spec.fold == fold]
        assert own[:2] == ["uniform", "uniform"]
        assert own[2:] == list(CLASSICAL)[1 : len(own) - 1]


def test_a_uniform_design_has_no_tilted_batch() -> None:
    assert {spec.role for spec in plan(design="uniform")} == {"uniform", "candidate"}


def test_the_plan_follows_from_the_seed() -> None:
    assert plan() == plan()
    assert plan() != plan(seed=1)


def test_candidates_choose_in_the_candidate_part_alone() -> None:
    for spec in plan():
        assert spec.fold is not None
        fold = FOLDS[spec.fold]
        assert len(set(spec.batch)) == 5
        assert set(spec.batch) <= set(fold.names(fold.candidates))
        assert set(spec.labelled) == {*fold.names(fold.labelled), *spec.batch}
        assert spec.unlabelled == ()
        assert spec.scoring == ("scoring",)


def test_the_paper_s_plan_is_of_uniform_batches_of_the_pool() -> None:
    spec = CycleSpec("d", 7, method="paper", choice="agent", table=TableSpec(records=9))
    specs = plan_proxies(spec, POOL, [], PICKS)
    assert len(specs) == 9
    assert {(spec.role, spec.chosen_by, spec.fold) for spec in specs} == {("pool", "uniform", None)}
    assert len({spec.seed for spec in specs}) == 9
    assert all(spec.unlabelled == spec.batch for spec in specs)

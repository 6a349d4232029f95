from __future__ import annotations

from dataclasses import replace

import pytest

from mgral_service.cycle.run import run
from mgral_service.cycle.table import fold_pool, folds_of
from mgral_service.domain.errors import Unreadable
from mgral_service.domain.pool import PoolSplit
from tests.cycle.cycles import NAMES, PAPER, SPEC, context, log
from tests.doubles import FakeDetector, FakeProxies


def test_folds_follow_from_seed_and_cycle_and_the_paper_has_none() -> None:
    assert folds_of(context()) == folds_of(context())
    assert folds_of(context(replace(SPEC, seed=1))) != folds_of(context())
    later = PoolSplit({**dict.fromkeys(NAMES[:29], 0), NAMES[29]: 1}, NAMES[60:], (), ())
    assert folds_of(context(pool_split=later)) != folds_of(context())
    assert folds_of(context(PAPER)) == ()


def test_a_fold_is_seen_by_a_detector_of_its_training_part_once() -> None:
    detector, cycle_log = FakeDetector(), log()
    fold = folds_of(context())[0]
    pool = fold_pool(context(detector=detector), cycle_log, fold)
    assert detector.fits == [fold.training]
    assert pool.names(pool.labelled) == fold.training
    assert pool.names(pool.candidates) == fold.candidates
    fold_pool(context(detector=detector), cycle_log, fold)
    assert len(detector.fits) == 1
    del cycle_log.stored_weights["fold-0"]  # damaged: fitted again
    fold_pool(context(detector=detector), cycle_log, fold)
    assert len(detector.fits) == 2


def test_a_proxy_trains_and_is_scored_on_disjoint_images_of_its_fold() -> None:
    proxies = FakeProxies()
    folds = folds_of(context())
    run(context(proxies=proxies), log())
    for spec in proxies.specs.values():
        assert spec.fold is not None
        fold = folds[spec.fold]
        assert set(spec.labelled) == {*fold.training, *spec.batch}
        assert set(spec.batch) <= set(fold.candidates)
        assert spec.scoring == fold.scoring
        assert not set(spec.labelled) & set(spec.scoring)


def test_the_proxies_of_a_fold_share_their_seed() -> None:
    proxies = FakeProxies()
    run(context(proxies=proxies), log())
    seeds = {(spec.fold, spec.seed) for spec in proxies.specs.values()}
    assert len(seeds) == 2
    assert len({seed for _, seed in seeds}) == 2


def test_the_agent_is_measured_in_every_fold() -> None:
    proxies = FakeProxies()
    run(context(proxies=proxies), log())
    agent = [spec for spec in proxies.specs.values() if spec.chosen_by == "agent"]
    assert sorted(spec.fold for spec in agent if spec.fold is not None) == [0, 1]
    assert {spec.role for spec in agent} == {"candidate"}
    assert sorted(proxies.specs) == list(range(16))


def test_unlabelled_images_of_the_pool_join_each_training_if_asked() -> None:
    proxies = FakeProxies()
    table = replace(SPEC.table, unlabelled=3)
    whole = context(replace(SPEC, table=table), proxies=proxies)
    run(whole, log())
    for spec in proxies.specs.values():
        assert len(spec.unlabelled) == 3
        assert set(spec.unlabelled) <= set(whole.split.unlabelled)


def test_a_record_of_another_batch_than_planned_is_refused() -> None:
    cycle_log = log()
    with pytest.raises(KeyboardInterrupt):
        run(context(proxies=FakeProxies(dies_after=1)), cycle_log)
    first = cycle_log.records()[0]
    cycle_log._records[0] = replace(first, batch=first.batch[::-1])
    with pytest.raises(Unreadable, match="record 0"):
        run(context(), cycle_log)

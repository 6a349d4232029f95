"""Which trainings are the same, and what is read of them."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.lib import trainings
from benchmarks.lib.trainings import (
    PROXIES,
    Grid,
    Job,
    Outcome,
    Setting,
    median_duration_s,
    outcomes,
    scores,
)
from mgral_service.domain.specs import DetectorSpec, TableAdvanced, TableSpec

SETTING = Setting("digits", DetectorSpec(), TableSpec())


def test_a_key_follows_from_all_that_makes_a_score() -> None:
    job = Job(SETTING, 0, 0)
    assert job.key == Job(SETTING, 0, 0).key
    others = [
        replace(job, batch=1),
        replace(job, seed=1),
        replace(job, setting=replace(SETTING, with_labels=True)),
        replace(job, setting=replace(SETTING, table=TableSpec(steps=81))),
        replace(job, setting=replace(SETTING, table=TableSpec(advanced=PROXIES["full"]))),
        replace(job, setting=replace(SETTING, detector=DetectorSpec(size=192))),
    ]
    assert len({job.key, *(other.key for other in others)}) == 7


def test_the_default_of_a_table_is_measured() -> None:
    assert PROXIES["head_warm"] == TableAdvanced()


def test_a_grid_is_every_batch_with_every_seed() -> None:
    jobs = Grid(SETTING, 2, (5, 7)).jobs
    assert [(job.batch, job.seed) for job in jobs] == [(0, 5), (0, 7), (1, 5), (1, 7)]


def test_what_is_stored_is_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Grid(SETTING, 1, (0, 1)).jobs
    trained = [Outcome(ap50=0.1, ap=0.2, duration_s=1.0), Outcome(ap50=0.3, ap=0.1, duration_s=2.0)]
    lines = [
        json.dumps({"key": job.key, "result": asdict(outcome)})
        for job, outcome in zip(jobs, trained, strict=True)
    ]
    monkeypatch.setattr(trainings, "STORE", tmp_path / "proxies.jsonl")
    trainings.STORE.write_text("\n".join([*lines, '{"key": "cut off']))
    assert outcomes(jobs, "cpu") == trained


def test_scores_and_durations() -> None:
    trained = [[Outcome(0.3, 0.2, 2.0)], [Outcome(1.0, 0.4, 4.0)]]
    np.testing.assert_allclose(scores(trained, "ap50"), [[0.3], [1.0]])
    np.testing.assert_allclose(scores(trained, "ap"), [[0.2], [0.4]])
    assert median_duration_s(trained) == 3.0

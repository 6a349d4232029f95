"""Which trainings are the same, and what is read back of them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import trainings
from benchmarks.trainings import Grid, Job, Outcome, Setting, outcomes, scores, seconds
from mgral_service.domain.specs import DetectorSpec, TableSpec

SETTING = Setting("digits", DetectorSpec(), TableSpec())


def test_a_training_is_known_by_all_that_makes_its_score() -> None:
    job = Job(SETTING, 0, 0)
    assert job.key == Job(SETTING, 0, 0).key
    others = [
        replace(job, batch=1),
        replace(job, seed=1),
        replace(job, setting=replace(SETTING, with_labels=True)),
        replace(job, setting=replace(SETTING, table=TableSpec(steps=81))),
        replace(job, setting=replace(SETTING, detector=DetectorSpec(size=192))),
    ]
    assert len({job.key, *(other.key for other in others)}) == 6


def test_a_grid_is_every_batch_with_every_seed() -> None:
    jobs = Grid(SETTING, 2, (5, 7)).jobs
    assert [(job.batch, job.seed) for job in jobs] == [(0, 5), (0, 7), (1, 5), (1, 7)]


def test_what_is_kept_is_not_trained_again_and_a_torn_line_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = Grid(SETTING, 1, (0, 1)).jobs
    lines = [
        f'{{"key": "{job.key}", "score": 0.{at}, "seconds": 2.0, "ap50": [0.1], "ap": [0.1]}}'
        for at, job in enumerate(jobs)
    ]
    monkeypatch.setattr(trainings, "KEPT", tmp_path / "kept.jsonl")
    trainings.KEPT.write_text("\n".join([*lines, '{"key": "torn']))
    assert [one.score for one in outcomes(jobs, "cpu")] == [0.0, 0.1]


def test_scores_by_name() -> None:
    found = [[Outcome("a", 0.5, 2.0, (0.1, 0.3), (0.0, 0.2))], [Outcome("b", 0.6, 4.0, (1.0,))]]
    np.testing.assert_allclose(scores(found), [[0.5], [0.6]])
    np.testing.assert_allclose(scores(found, "ap50"), [[0.3], [1.0]])
    np.testing.assert_allclose(scores(found, "ap50_mean"), [[0.2], [1.0]])
    assert seconds(found) == 3.0

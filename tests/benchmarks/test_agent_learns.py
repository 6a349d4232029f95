import numpy as np
import pytest

from benchmarks import agent_learns
from benchmarks.agent_learns import LABELLED, best_additive, best_coverage, planted
from benchmarks.harness import Options
from mgral_service.domain.specs import AgentSpec

BUDGET = 40
WORLD = planted(LABELLED + 400, BUDGET, 0)


def test_a_detection_for_each_object() -> None:
    found = WORLD.seen.detections
    counts = np.zeros_like(WORLD.objects)
    np.add.at(counts, (found.image, found.labels), 1)
    assert counts.tolist() == WORLD.objects.tolist()
    assert found.probs.sum(axis=1) == pytest.approx(1)


def test_the_best_batches_are_better_than_chance_in_what_they_search() -> None:
    rng = np.random.default_rng(0)
    for worth, best in (
        (WORLD.additive, best_additive(WORLD, BUDGET)),
        (WORLD.coverage, best_coverage(WORLD, BUDGET)),
    ):
        assert len(set(best.tolist())) == BUDGET
        assert best.min() >= LABELLED
        assert worth(best) > max(worth(rng.permutation(WORLD.pool)[:BUDGET]) for _ in range(50))


def test_every_figure_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_learns, "TABLES", 2)
    monkeypatch.setattr(agent_learns, "RECORDS", 30)
    monkeypatch.setattr(agent_learns, "QUICK", (400, BUDGET, AgentSpec(iterations=20)))
    figures = agent_learns.measure(Options(quick=True, device="cpu"))
    assert 0 < figures["additive_share"] <= 1
    assert 0 < figures["coverage_share"] <= 1
    assert figures["noise_flagged_share"] in {0, 0.5, 1}

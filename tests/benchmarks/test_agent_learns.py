import numpy as np
import pytest

from benchmarks import agent_learns
from benchmarks.agent_learns import PLANTED, planted
from benchmarks.lib.harness import Options
from mgral_service.domain.specs import AgentSpec

BUDGET = 40
WORLD = planted(400, BUDGET, 0)


@pytest.mark.parametrize("name", PLANTED)
def test_the_search_beats_chance_in_the_planted_value(name: str) -> None:
    value, search = PLANTED[name]
    rng = np.random.default_rng(0)
    best = search(WORLD)
    assert len(set(best.tolist())) == BUDGET
    assert np.isin(best, WORLD.pool.candidates).all()
    chance = [value(WORLD, rng.permutation(WORLD.pool.candidates)[:BUDGET]) for _ in range(50)]
    assert value(WORLD, best) > max(chance)


def test_every_figure_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_learns, "QUICK_TABLES", 2)
    monkeypatch.setattr(agent_learns, "RECORDS", 24)
    monkeypatch.setattr(agent_learns, "QUICK", (150, 20, AgentSpec(iterations=4)))
    figures = agent_learns.measure(Options(quick=True, device="cpu"))
    assert figures["additive_share"] <= 1
    assert figures["coverage_share"] <= 1
    assert figures["coverage_iterations"] == 4
    assert figures["noise_flagged_share"] in {0, 0.5, 1}

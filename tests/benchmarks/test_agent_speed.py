import pytest

from benchmarks import agent_speed
from benchmarks.lib.harness import Options


def test_shares_make_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_speed, "LABELLED", 60)
    monkeypatch.setattr(agent_speed, "CANDIDATES", 300)
    monkeypatch.setattr(agent_speed, "BUDGET", 30)
    monkeypatch.setattr(agent_speed, "RECORDS", 20)
    monkeypatch.setattr(agent_speed, "QUICK_ITERATIONS", 4)
    figures = agent_speed.measure(Options(quick=True, device="cpu"))
    shares = [figures[f"share_{part}"] for part in ("policy", "sampling", "reward")]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0
    assert figures["iterations_per_s"] == pytest.approx(
        figures["iterations"] / (60 * figures["minutes"])
    )

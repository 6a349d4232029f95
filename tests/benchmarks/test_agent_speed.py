import pytest

from benchmarks import agent_speed
from benchmarks.harness import Options


def test_shares_make_the_whole_and_the_agent_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_speed, "LABELLED", 60)
    monkeypatch.setattr(agent_speed, "OPEN", 400)
    monkeypatch.setattr(agent_speed, "BUDGET", 40)
    monkeypatch.setattr(agent_speed, "RECORDS", 60)
    figures = agent_speed.measure(Options(quick=True, device="cpu"))
    shares = [figures[f"share_{part}"] for part in ("policy", "sampling", "reward")]
    assert sum(shares) == pytest.approx(1)
    assert min(shares) > 0
    assert figures["iterations_per_s"] == pytest.approx(
        figures["iterations"] / (60 * figures["minutes"])
    )
    assert 0 < figures["share_of_best"] <= 1

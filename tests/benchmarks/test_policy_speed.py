"""What the speed benchmark of the policy compares."""

import pytest
import torch

from benchmarks import policy_speed
from benchmarks.lib.harness import Options
from mgral_service.agent.policy import Policy, walk


def test_both_sides_have_the_same_scores_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_speed, "QUICK_IMAGES", 30)
    monkeypatch.setattr(policy_speed, "DIMENSION", 6)
    monkeypatch.setattr(policy_speed, "LANE", 8)
    figures = policy_speed.measure(Options(quick=True, device="cpu"))
    for name in ("score_error", "lanes_score_error"):
        assert figures[name] < 1e-5
    for name in ("gradient_error", "lanes_gradient_error"):
        assert figures[name] < 1e-4
    assert figures["lanes_speedup"] == figures["plain_s"] / figures["lanes_s"]
    assert figures["one_lane_speedup"] == figures["plain_s"] / figures["one_lane_s"]
    assert figures["images"] == 30


def test_the_plain_loop_starts_anew_with_each_lane() -> None:
    policy = Policy(6, torch.Generator().manual_seed(0))
    plain = policy_speed.Plain(policy)
    images = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(plain(images, 4)[4:], plain(images[4:], 4))
        assert not torch.allclose(plain(images, 8)[4:], plain(images[4:], 4))
        assert torch.allclose(plain(images, 4), walk(policy, images, torch.arange(8), 4), atol=1e-6)

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mgral_service.agent.policy import Policy, probe, score, walk, weights_of


def policy_of(dimension: int = 5, seed: int = 0) -> Policy:
    return Policy(dimension, torch.Generator().manual_seed(seed))


def images_of(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_scores(policy: Policy, images: Tensor) -> Tensor:
    """The paper's walk with torch's own LSTM cell and autograd; [T, L, D] -> [T, L]."""
    width = policy.dimension + 1
    cell = nn.LSTMCell(width, width).to(images.dtype)
    order = [0, 1, 3, 2]  # torch's gates: input, forget, candidate, output

    def gates(weight: Tensor) -> Tensor:
        return torch.cat([weight.chunk(4, dim=-1)[at] for at in order], dim=-1)

    functional = {
        "weight_ih": gates(torch.cat([policy.embed, policy.feed[None]])).t(),
        "weight_hh": gates(policy.hidden).t(),
        "bias_ih": gates(policy.bias),
        "bias_hh": torch.zeros(4 * width, dtype=images.dtype),
    }
    hidden = cells = images.new_zeros(images.shape[1], width)
    fed = images.new_zeros(images.shape[1], 1)
    scores = []
    for step in images:
        inputs = (torch.cat([step, fed], dim=1), (hidden, cells))
        hidden, cells = torch.func.functional_call(cell, functional, inputs)
        decoded = torch.relu(hidden @ policy.inner + policy.inner_bias) @ policy.outer
        scores.append(decoded + policy.outer_bias)
        fed = scores[-1].detach().tanh()[:, None]
    return torch.stack(scores)


def test_two_hundred_fifty_six_dimensions_give_the_papers_width() -> None:
    assert policy_of(256).hidden.shape == (257, 4 * 257)


def test_scores_and_gradients_equal_the_plain_loop_with_autograd() -> None:
    policy = policy_of().double()
    images = images_of(7, 3, 5).double()
    weigh = images_of(7, 3, seed=2).double()
    scores = policy(images)
    mine = torch.autograd.grad((scores * weigh).sum(), list(policy.parameters()))
    expected = plain_scores(policy, images)
    plain = torch.autograd.grad((expected * weigh).sum(), list(policy.parameters()))
    assert torch.allclose(scores, expected, atol=1e-12)
    assert len(mine) == 8
    for one, other in zip(mine, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("lane", [0, 1, 4, 7, 100])
def test_each_image_gets_its_own_score_in_lanes_of_any_length(lane: int) -> None:
    policy, points = policy_of(), images_of(11, 5)
    order = torch.randperm(11, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        scores = walk(policy, points, order, lane)
    lanes = 1 if lane == 0 else -(-11 // lane)
    steps = -(-11 // lanes)
    for first in range(0, 11, steps):
        members = order[first : first + steps]
        with torch.no_grad():
            alone = policy(points[members][:, None])[:, 0]
        assert torch.allclose(scores[members], alone, atol=1e-6)


def test_the_previous_score_matters() -> None:
    policy, images = policy_of(), images_of(4, 1, 5)
    with torch.no_grad():
        before = policy(images)
        policy.feed.zero_()
        after = policy(images)
    assert before[0] == after[0]
    assert (before[1:] != after[1:]).all()


def test_stored_weights_give_the_same_scores_bit_for_bit() -> None:
    policy, points = policy_of(), images_of(9, 5)
    with torch.no_grad():
        scores = walk(policy, points, torch.arange(9), 4)
    weights = weights_of(policy, 4)
    again = score(weights, points.double().numpy())
    assert again.tolist() == scores.double().tolist()
    assert again.tolist() == score(weights, points.double().numpy()).tolist()


def test_the_probe_gives_finite_scores() -> None:
    assert np.isfinite(probe()).all()
    assert probe().shape == (8,)

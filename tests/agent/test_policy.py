from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mgral_service.agent.policy import Policy, probe, score, walk, weights_of
from mgral_service.domain.errors import InvalidInput


def policy_of(dimension: int = 5, seed: int = 0) -> Policy:
    return Policy(dimension, torch.Generator().manual_seed(seed))


def images_of(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plain_scores(policy: Policy, images: Tensor) -> Tensor:
    """The paper's walk with torch's own LSTM cell and autograd; [T, L, D] -> [T, L]."""
    width = policy.width
    cell = nn.LSTMCell(policy.dimension + 1, width).to(images.dtype)
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


@pytest.mark.parametrize("dimension", [256, 279])
def test_two_hundred_fifty_six_dimensions_give_the_papers_width_and_more_no_more(
    dimension: int,
) -> None:
    assert policy_of(dimension).hidden.shape == (257, 4 * 257)


@pytest.mark.parametrize("dimension", [5, 260])
def test_scores_and_gradients_equal_the_plain_loop_with_autograd(dimension: int) -> None:
    policy = policy_of(dimension).double()
    images = images_of(7, 3, dimension).double()
    weigh = images_of(7, 3, seed=2).double()
    scores = policy(images)
    mine = torch.autograd.grad((scores * weigh).sum(), list(policy.parameters()))
    expected = plain_scores(policy, images)
    plain = torch.autograd.grad((expected * weigh).sum(), list(policy.parameters()))
    assert torch.allclose(scores, expected, atol=1e-12)
    assert len(mine) == 8
    for one, other in zip(mine, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


@pytest.mark.parametrize("dimension", [1, 5, 6])
def test_gradients_are_those_of_finite_differences(dimension: int) -> None:
    policy = policy_of(dimension).double()
    with torch.no_grad():
        policy.feed.zero_()  # the score that is fed back carries no gradient
    images = images_of(5, 2, dimension).double()
    weigh = images_of(5, 2, seed=2).double()
    weights = {name: one for name, one in policy.named_parameters() if name != "feed"}
    mine = torch.autograd.grad((policy(images) * weigh).sum(), list(weights.values()))
    small = 1e-6
    for weight, gradient in zip(weights.values(), mine, strict=True):
        towards = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)).double()
        with torch.no_grad():
            weight.add_(small * towards)
            above = (policy(images) * weigh).sum()
            weight.sub_(2 * small * towards)
            below = (policy(images) * weigh).sum()
            weight.add_(small * towards)
        slope = ((above - below) / (2 * small)).item()
        assert (gradient * towards).sum().item() == pytest.approx(slope, rel=1e-6, abs=1e-8)


def test_saturated_gates_give_the_plain_loops_scores_and_finite_gradients() -> None:
    policy = policy_of()
    images = images_of(6, 2, 5) * 1e4
    scores = policy(images)
    assert torch.allclose(scores, plain_scores(policy, images), atol=1e-6)
    scores.sum().backward()
    assert all(one.grad is not None and one.grad.isfinite().all() for one in policy.parameters())


def test_the_same_pass_gives_the_same_gradients_bit_for_bit() -> None:
    def gradients() -> list[list[float]]:
        policy, points = policy_of(), images_of(11, 5)
        walk(policy, points, torch.arange(11), 4).square().sum().backward()  # type: ignore[no-untyped-call]
        return [one.grad.flatten().tolist() for one in policy.parameters() if one.grad is not None]

    assert len(gradients()) == 8
    assert gradients() == gradients()


def test_padding_adds_nothing_to_the_gradients() -> None:
    policy, points = policy_of().double(), images_of(11, 5).double()
    weigh = images_of(11, seed=2).double()
    scores = walk(policy, points, torch.arange(11), 4)  # lanes of 4, 4 and 3 images
    mine = torch.autograd.grad((scores * weigh).sum(), list(policy.parameters()))
    alone = [plain_scores(policy, part[:, None])[:, 0] for part in torch.split(points, 4)]
    plain = torch.autograd.grad((torch.cat(alone) * weigh).sum(), list(policy.parameters()))
    for one, other in zip(mine, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-10)


def test_a_second_backward_pass_is_refused() -> None:
    scores = policy_of()(images_of(3, 2, 5))
    scores.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError):
        scores.sum().backward()


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


def test_images_of_another_width_are_refused() -> None:
    weights = weights_of(Policy(4, torch.Generator().manual_seed(0)), 4)
    with pytest.raises(InvalidInput, match="reads 4 numbers an image and was given 5"):
        score(weights, np.zeros((8, 5)))


def test_weights_of_more_hidden_units_than_are_made_now_still_score() -> None:
    policy = Policy(258, torch.Generator().manual_seed(0), width=259)
    images = images_of(9, 258)
    expected = walk(policy, images, torch.arange(9), 4).detach().double().numpy()
    assert score(weights_of(policy, 4), images.double().numpy()) == pytest.approx(expected)


def test_the_probe_gives_finite_scores() -> None:
    assert np.isfinite(probe()).all()
    assert probe().shape == (8,)

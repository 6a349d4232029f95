"""The policy: an LSTM that walks over the pool and gives each image a score (MGRAL, section 3.3).

At each step it reads an image's embedding [D] and its own previous score, so D = 256 gives the
paper's 257 inputs and 257 hidden units; a two-layer decoder turns the hidden state into a score.
The walk runs in lanes that share weights; one lane is the paper's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mgral_service.domain.arrays import FloatArray


class Policy(nn.Module):
    """Weights of the walk. H = D + 1; gates are laid out input, forget, output, candidate.

    embed [D, 4H], feed [4H] (previous score), hidden [H, 4H], bias [4H]: the LSTM
    inner [H, H], inner_bias [H], outer [H], outer_bias [1]: the decoder, ReLU between its layers
    """

    def __init__(self, dimension: int, generator: torch.Generator) -> None:
        super().__init__()
        width = dimension + 1
        bound = width**-0.5
        self.dimension = dimension

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        self.embed, self.feed = weight(dimension, 4 * width), weight(4 * width)
        self.hidden, self.bias = weight(width, 4 * width), weight(4 * width)
        self.inner, self.inner_bias = weight(width, width), weight(width)
        self.outer, self.outer_bias = weight(width), weight(1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores [T, L] of L lanes of T images, [T, L, D]."""
        projected = images @ self.embed + self.bias
        decoder = (self.inner, self.inner_bias, self.outer, self.outer_bias)
        walked: Any = _Walk.apply
        states: Tensor = walked(projected, self.feed, self.hidden, *decoder)
        return _decode(states, *decoder)


def _decode(
    states: Tensor, inner: Tensor, inner_bias: Tensor, outer: Tensor, bias: Tensor
) -> Tensor:
    """[..., H] -> [...]."""
    return torch.relu(states @ inner + inner_bias) @ outer + bias


class _Walk(torch.autograd.Function):
    """Hidden states [T, L, H] from the projected input [T, L, 4H], with a backward pass of its own.

    The score fed back enters as tanh(score) and carries no gradient, so the decoder's weights have
    none here; those of `feed` and `hidden` are one product each over all steps.
    """

    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        feed: Tensor,
        hidden: Tensor,
        inner: Tensor,
        inner_bias: Tensor,
        outer: Tensor,
        outer_bias: Tensor,
    ) -> Tensor:
        steps, lanes, _ = projected.shape
        width = hidden.shape[0]
        states = projected.new_zeros(steps + 1, lanes, width)
        cells = projected.new_zeros(steps + 1, lanes, width)
        scores = projected.new_zeros(steps + 1, lanes)
        gates = projected.clone()
        for t in range(steps):
            gate = gates[t]
            gate.addmm_(states[t], hidden).addcmul_(scores[t, :, None], feed)
            gate[:, : 3 * width].sigmoid_()
            gate[:, 3 * width :].tanh_()
            enter, forget, leave, new = gate.view(lanes, 4, width).unbind(1)
            torch.addcmul(forget * cells[t], enter, new, out=cells[t + 1])
            torch.mul(leave, torch.tanh(cells[t + 1]), out=states[t + 1])
            decoded = _decode(states[t + 1], inner, inner_bias, outer, outer_bias)
            torch.tanh(decoded, out=scores[t + 1])
        ctx.save_for_backward(gates, states, cells, scores, hidden)
        return states[1:].clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        gates, states, cells, scores, hidden = ctx.saved_tensors
        from_above = upstream[0]
        steps, lanes, width = from_above.shape
        slopes = torch.empty_like(gates)  # d loss / d gates before their nonlinearity
        bends = torch.cat(
            [
                gates[..., : 3 * width] * (1 - gates[..., : 3 * width]),
                1 - gates[..., 3 * width :] ** 2,
            ],
            dim=-1,
        )
        to_cell = gates.new_zeros(lanes, width)
        to_state = gates.new_zeros(lanes, width)
        back = hidden.t().contiguous()
        for t in range(steps - 1, -1, -1):
            to_state = to_state + from_above[t]
            enter, forget, leave, new = gates[t].view(lanes, 4, width).unbind(1)
            squashed = torch.tanh(cells[t + 1])
            to_cell = to_cell + to_state * leave * (1 - squashed * squashed)
            by_enter, by_forget, by_leave, by_new = slopes[t].view(lanes, 4, width).unbind(1)
            torch.mul(to_cell, new, out=by_enter)
            torch.mul(to_cell, cells[t], out=by_forget)
            torch.mul(to_state, squashed, out=by_leave)
            torch.mul(to_cell, enter, out=by_new)
            slopes[t] *= bends[t]
            to_cell = to_cell * forget
            to_state = slopes[t] @ back
        flat = slopes.reshape(steps * lanes, 4 * width)
        to_feed = scores[:-1].reshape(-1) @ flat
        to_hidden = states[:-1].reshape(-1, width).t() @ flat
        return slopes, to_feed, to_hidden, None, None, None, None


def walk(policy: Policy, embeddings: Tensor, order: Tensor, lane: int) -> Tensor:
    """Scores [N] of embeddings [N, D], walked in `order` [N] in lanes of about `lane` images (0:
    one lane).

    Lanes are equally long; the last steps of some are padding, whose scores are dropped.
    """
    count = len(order)
    lanes = 1 if lane == 0 else -(-count // lane)
    steps = -(-count // lanes)
    padded = embeddings.new_zeros(lanes * steps, embeddings.shape[1])
    padded[:count] = embeddings[order]
    images = padded.view(lanes, steps, -1).transpose(0, 1).contiguous()
    walked = policy(images).transpose(0, 1).reshape(-1)[:count]
    return torch.empty_like(walked).index_copy(0, order, walked)


def weights_of(policy: Policy, lane: int) -> dict[str, np.ndarray[Any, Any]]:
    """Everything that `score` needs, by name; copies."""
    named = {name: value.detach().cpu().numpy().copy() for name, value in policy.named_parameters()}
    return {**named, "lane": np.array([lane], dtype=np.int64)}


def score(weights: Mapping[str, np.ndarray[Any, Any]], embeddings: FloatArray) -> FloatArray:
    """Scores [N] of standardised embeddings [N, D] by a policy's weights, walked in the order
    given.

    The same order on the same machine gives the same scores; a Serve replica calls this.
    """
    policy = Policy(int(weights["embed"].shape[0]), torch.Generator())
    with torch.no_grad():
        for name, value in policy.named_parameters():
            value.copy_(torch.from_numpy(np.asarray(weights[name])))
        points = torch.from_numpy(np.ascontiguousarray(embeddings, dtype=np.float32))
        return pool_scores(policy, points, int(np.asarray(weights["lane"]).item()))


def pool_scores(policy: Policy, embeddings: Tensor, lane: int) -> FloatArray:
    """Scores [N] of embeddings [N, D] in their own order, without gradient."""
    with torch.no_grad():
        order = torch.arange(len(embeddings), device=embeddings.device)
        return walk(policy, embeddings, order, lane).double().cpu().numpy()


def probe() -> FloatArray:
    """[8] scores of eight tiny images by a fresh policy: shows that inference works on this
    machine.
    """
    policy = Policy(4, torch.Generator().manual_seed(0))
    return score(weights_of(policy, 4), np.linspace(-1.0, 1.0, 32).reshape(8, 4))

"""The policy: an LSTM that walks over the pool and gives each image a score (MGRAL, section 3.3).

At each step it reads an image's state [D] and its own previous score, so D = 256 gives the paper's
257 inputs and 257 hidden units; a two-layer decoder turns the hidden state into a score. A wider
state gets no more hidden units: a walk's time grows with both.
The walk runs in lanes that share weights; one lane is the paper's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mgral_service.domain.arrays import FloatArray
from mgral_service.domain.errors import InvalidInput

_WIDEST = 256  # states that get a hidden unit for each number: the paper's
_MULTIPLE = 8  # of the walk's width: floats in a vector register; matrix products like it
aten: Any = torch.ops.aten


class Policy(nn.Module):
    """Weights of the walk. H = min(D, 256) + 1; gates: input, forget, output, candidate.

    embed [D, 4H], feed [4H] (previous score), hidden [H, 4H], bias [4H]: the LSTM
    inner [H, H], inner_bias [H], outer [H], outer_bias [1]: the decoder, ReLU between its layers
    """

    def __init__(
        self, dimension: int, generator: torch.Generator, width: int | None = None
    ) -> None:
        """width: another H, of weights that were trained with it."""
        super().__init__()
        width = width or min(dimension, _WIDEST) + 1
        bound = width**-0.5
        self.dimension, self.width = dimension, width

        def weight(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))

        self.embed, self.feed = weight(dimension, 4 * width), weight(4 * width)
        self.hidden, self.bias = weight(width, 4 * width), weight(4 * width)
        self.inner, self.inner_bias = weight(width, width), weight(width)
        self.outer, self.outer_bias = weight(width), weight(1)

    def forward(self, images: Tensor) -> Tensor:
        """Scores [T, L] of L lanes of T images, [T, L, D]; the images get no gradient."""
        width = self.width
        span = -(-(width + 2) // _MULTIPLE) * _MULTIPLE
        more, spare = span - width, span - width - 2
        entering = F.pad(self.embed.view(-1, 4, width), (0, more)).flatten(1)
        rows = torch.cat([self.hidden, self.feed[None], self.bias[None]])
        recurrent = F.pad(rows.view(-1, 4, width), (0, more, 0, 0, 0, spare)).flatten(1)
        unread = self.inner.new_zeros(1, width)
        layer = F.pad(torch.cat([self.inner, unread, self.inner_bias[None]]), (0, more, 0, spare))
        decoder = (layer, F.pad(self.outer, (0, more)), self.outer_bias)
        walked: Any = _Walk.apply
        scores: Tensor = walked(images, entering, recurrent, *decoder, width)
        return scores


class _Walk(torch.autograd.Function):
    """Scores [T, L] of images [T, L, D], with a backward pass of its own.

    States and weights are a little wider than H = `width`, S: products are faster so. In a state,
    tanh of its score and a 1 follow its H units; so the feed and the biases are rows of the
    weights. The rest is zero. The score that is fed back carries no gradient; a weight's gradient
    is one product over all steps.

    tanh(x) is 2 sigmoid(2 x) - 1, which takes a third of the time. The backward pass writes over
    what the forward pass kept, so it can run once.

    entering [D, 4S], recurrent [S, 4S], inner [S, S], outer [S], outer_bias [1]
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        entering: Tensor,
        recurrent: Tensor,
        inner: Tensor,
        outer: Tensor,
        outer_bias: Tensor,
        width: int,
    ) -> Tensor:
        steps, lanes, _ = images.shape
        span = len(recurrent)
        less, two = images.new_tensor([-1.0, 2.0])
        twice = images.new_tensor([1.0, 1.0, 1.0, 2.0]).repeat_interleave(span)
        recurring = recurrent * twice
        gates = (images.flatten(0, 1) @ (entering * twice)).view(steps, lanes, -1)
        states, cells = images.new_zeros(2, steps + 1, lanes, span)
        states[..., width + 1] = 1.0
        squashed, decoded = images.new_empty(2, steps, lanes, span)
        scores = images.new_empty(steps, lanes)
        enter, forget, leave, new = _each(gates.view(steps, lanes, 4, span), dim=2)
        gate, state, cell = gates.unbind(), states.unbind(), cells.unbind()
        squash, layer, out = squashed.unbind(), decoded.unbind(), scores.unbind()
        unit, fed = states[..., :width].unbind(), states[..., width].unbind()
        for t in range(steps):
            gate[t].addmm_(state[t], recurring).sigmoid_()
            torch.add(less, new[t], alpha=2, out=new[t])
            torch.mul(forget[t], cell[t], out=cell[t + 1]).addcmul_(enter[t], new[t])
            torch.sigmoid(torch.mul(cell[t + 1], two, out=squash[t]), out=squash[t])
            torch.add(less, squash[t], alpha=2, out=squash[t])
            torch.mul(leave[t][:, :width], squash[t][:, :width], out=unit[t + 1])
            torch.mm(state[t + 1], inner, out=layer[t]).relu_()
            torch.addmv(outer_bias, layer[t], outer, out=out[t])
            torch.tanh(out[t], out=fed[t + 1])
        ctx.width = width
        saved = images, recurrent, inner, outer, gates, states, cells, squashed, decoded
        ctx.save_for_backward(*saved)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        images, recurrent, inner, outer, gates, states, cells, squashed, decoded = ctx.saved_tensors
        steps, lanes, span, width = len(images), images.shape[1], len(recurrent), ctx.width
        by_score = upstream[0].reshape(-1)
        by_outer = by_score @ decoded.flatten(0, 1)
        by_layer = decoded.flatten(0, 1).sign_().mul_(outer).mul_(by_score[:, None])
        units = (0, 0, 0, span - width)
        by_state = (by_layer @ F.pad(inner[:width], units).t()).view_as(squashed).unbind()
        back = F.pad(recurrent[:width], units).t()
        by_cell, part = gates.new_zeros(2, lanes, span)
        slope = gates.new_empty(lanes, 4 * span)
        by_enter, by_forget, by_leave, by_new = slope.view(lanes, 4, span).unbind(1)
        by_three = slope[:, : 3 * span]
        enter, forget, leave, new = _each(gates.view(steps, lanes, 4, span), dim=2)
        gate, cell, squash = gates.unbind(), cells.unbind(), squashed.unbind()
        three = gates[..., : 3 * span].unbind()
        for t in reversed(range(steps)):
            if t + 1 < steps:
                by_state[t].addmm_(gate[t + 1], back)
            torch.mul(by_state[t], leave[t], out=part)
            by_cell += aten.tanh_backward.grad_input(part, squash[t], grad_input=part)
            torch.mul(by_cell, new[t], out=by_enter)
            torch.mul(by_cell, cell[t], out=by_forget)
            torch.mul(by_state[t], squash[t], out=by_leave)
            torch.mul(by_cell, enter[t], out=by_new)
            by_cell *= forget[t]
            aten.sigmoid_backward.grad_input(by_three, three[t], grad_input=three[t])
            aten.tanh_backward.grad_input(by_new, new[t], grad_input=new[t])
        slopes = gates.flatten(0, 1)
        return (
            None,
            images.flatten(0, 1).t() @ slopes,
            states[:-1].flatten(0, 1).t() @ slopes,
            states[1:].flatten(0, 1).t() @ by_layer,
            by_outer,
            by_score.sum()[None],
            None,
        )


def _each(tensor: Tensor, dim: int) -> Iterator[tuple[Tensor, ...]]:
    """For each index of `dim` the steps' views: taking them one by one costs as much as a step."""
    return (view.unbind() for view in tensor.unbind(dim))


def walk(policy: Policy, embeddings: Tensor, order: Tensor, lane: int) -> Tensor:
    """Scores [N] of embeddings [N, D], walked in `order` [N] in lanes of about `lane` images (0:
    one lane).

    Lanes are equally long; the last steps of some are padding, whose scores are dropped.
    """
    count = len(order)
    lanes = 1 if lane == 0 else -(-count // lane)
    steps = -(-count // lanes)
    places = F.pad(order, (0, lanes * steps - count)).view(lanes, steps).t().flatten()
    images = embeddings.index_select(0, places).view(steps, lanes, -1)
    walked = policy(images).t().flatten()[:count]
    return torch.empty_like(walked).index_copy(0, order, walked)


def weights_of(policy: Policy, lane: int) -> dict[str, np.ndarray[Any, Any]]:
    """Everything that `score` needs, by name; copies."""
    named = {name: value.detach().cpu().numpy().copy() for name, value in policy.named_parameters()}
    return {**named, "lane": np.array([lane], dtype=np.int64)}


def score(weights: Mapping[str, np.ndarray[Any, Any]], embeddings: FloatArray) -> FloatArray:
    """Scores [N] of standardised embeddings [N, D] by a policy's weights, walked in the order
    given.

    The same order on the same machine gives the same scores; a Serve replica calls this.
    InvalidInput for a policy that reads another number of columns.
    """
    dimension, width = int(weights["embed"].shape[0]), int(weights["hidden"].shape[0])
    policy = Policy(dimension, torch.Generator(), width)
    if embeddings.shape[1] != policy.dimension:
        raise InvalidInput(
            "agent",
            f"reads {policy.dimension} numbers an image and was given {embeddings.shape[1]}: "
            "another version or detector trained it; run a new cycle",
        )
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

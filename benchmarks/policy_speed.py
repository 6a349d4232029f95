"""Time of the policy's pass over a pool and of its gradient, against torch's own LSTM cell with
autograd, one image after the other; and whether scores and gradients are the same.

15,500 images of 256 numbers, random weights, float32, as many threads as torch takes. In lanes of
128 images each lane starts anew; in one lane the walk is the plain loop's, step for step. Each side
is timed as its fastest turn. A ReLU unit within rounding of 0 has no definite gradient: the few
images with such a unit (`kinked`) are left out of the gradient. `--quick`: 3,000 images, so lanes
save less.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter, process_time

import torch
from torch import Tensor, nn

from benchmarks.lib.harness import Figures, Options, main
from mgral_service.agent.policy import Policy, walk

SEED = 0
IMAGES, QUICK_IMAGES = 15_500, 3_000
DIMENSION = 256
LANE = 128
KINK = 1e-6
TURNS = {"lanes": 7, "one_lane": 3, "plain": 2}
GATES = [0, 1, 3, 2]  # the policy's input, forget, output, candidate in the order of torch

Passed = tuple[Tensor, Mapping[str, Tensor]]
"""Scores [N], and gradients by the plain loop's names."""


class Plain(nn.Module):
    """The paper's walk as torch's building blocks give it."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        width = policy.dimension + 1
        self.cell = nn.LSTMCell(width, width)
        self.decoder = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        self.load_state_dict(
            laid_out({name: weight.data for name, weight in policy.named_parameters()})
        )

    @torch.no_grad()
    def kinked(self, images: Tensor, lane: int) -> Tensor:
        """[N] whether a unit before the ReLU is within KINK of 0."""
        near: list[Tensor] = []
        hook = self.decoder[0].register_forward_hook(
            lambda module, inputs, units: near.append(units.abs().min() < KINK)
        )
        self(images, lane)
        hook.remove()
        return torch.stack(near)

    def forward(self, images: Tensor, lane: int) -> Tensor:
        """Scores [N] of images [N, D]; the state starts anew every `lane` images."""
        scores: list[Tensor] = []
        state, fed = None, images.new_zeros(1, 1)
        for step, image in enumerate(images[:, None]):
            if step % lane == 0:
                state, fed = None, torch.zeros_like(fed)
            state = self.cell(torch.cat([image, fed], 1), state)
            scores.append(self.decoder(state[0]))
            fed = scores[-1].detach().tanh()
        return torch.cat(scores)[:, 0]


def laid_out(policy: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The policy's weights, or their gradients, as those of `Plain`."""

    def gates(weight: Tensor) -> Tensor:
        return torch.cat([weight.chunk(4, -1)[gate] for gate in GATES], -1).t()

    return {
        "cell.weight_ih": gates(torch.cat([policy["embed"], policy["feed"][None]])),
        "cell.weight_hh": gates(policy["hidden"]),
        "cell.bias_ih": gates(policy["bias"][None])[:, 0],
        "cell.bias_hh": torch.zeros_like(policy["bias"]),
        "decoder.0.weight": policy["inner"].t(),
        "decoder.0.bias": policy["inner_bias"],
        "decoder.2.weight": policy["outer"][None],
        "decoder.2.bias": policy["outer_bias"],
    }


def measure(options: Options) -> Figures:
    count = QUICK_IMAGES if options.quick else IMAGES
    generator = torch.Generator().manual_seed(SEED)
    policy = Policy(DIMENSION, generator).to(options.device)
    images = torch.randn(count, DIMENSION, generator=generator).to(options.device)
    upstream = torch.randn(count, generator=generator).to(options.device)
    plain = Plain(policy).to(options.device)
    order = torch.arange(count, device=options.device)

    def steps_of(lane: int) -> int:
        """Images a lane: `walk` makes lanes equally long."""
        return -(-count // -(-count // lane))

    kinked = plain.kinked(images, count) | plain.kinked(images, steps_of(LANE))
    upstream = upstream.masked_fill(kinked, 0.0)

    def ours(lane: int) -> Passed:
        policy.zero_grad()
        scores = walk(policy, images, order, lane)
        torch.autograd.backward(scores, upstream)
        return scores.detach(), laid_out(gradients(policy))

    def theirs(lane: int) -> Passed:
        plain.zero_grad()
        scores = plain(images, lane)
        torch.autograd.backward(scores, upstream)
        return scores.detach(), gradients(plain)

    sides: dict[str, Callable[[], Passed]] = {
        "lanes": lambda: ours(LANE),
        "one_lane": lambda: ours(0),
        "plain": lambda: theirs(count),
    }
    figures: dict[str, float] = {}
    passed: dict[str, Passed] = {}
    for name, side in sides.items():
        turns = []
        for turn in range(1, TURNS[name] + 1):
            began = perf_counter(), process_time()
            passed[name] = side()
            if options.device == "cuda":
                torch.cuda.synchronize()
            turns.append((perf_counter() - began[0], process_time() - began[1]))
            print(f"{name} {turn}/{TURNS[name]}: {turns[-1][0]:.2f} s", flush=True)
        figures[f"{name}_s"], figures[f"{name}_cpu_s"] = map(min, zip(*turns, strict=True))
    score_error, gradient_error = difference(passed["one_lane"], passed["plain"])
    lanes_score_error, lanes_gradient_error = difference(passed["lanes"], theirs(steps_of(LANE)))
    return {
        "lanes_speedup": figures["plain_s"] / figures["lanes_s"],
        "one_lane_speedup": figures["plain_s"] / figures["one_lane_s"],
        "score_error": score_error,
        "gradient_error": gradient_error,
        "lanes_score_error": lanes_score_error,
        "lanes_gradient_error": lanes_gradient_error,
        **figures,
        "images": count,
        "kinked": int(kinked.sum()),
        "threads": torch.get_num_threads(),
    }


def gradients(module: nn.Module) -> dict[str, Tensor]:
    """By the names of its weights; all have one."""
    return {
        name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None
    }


def difference(first: Passed, second: Passed) -> tuple[float, float]:
    """The largest of the scores, and of the gradients as a share of the whole weight's gradient.

    torch's second bias is no weight of the policy.
    """
    (scores, ours), (reference, theirs) = first, second
    shares = [
        ((ours[name] - value).norm() / value.norm()).item()
        for name, value in theirs.items()
        if name != "cell.bias_hh"
    ]
    return (scores - reference).abs().max().item(), max(shares)


if __name__ == "__main__":
    main("policy_speed", "the policy's pass and gradient, against torch's LSTMCell", measure)

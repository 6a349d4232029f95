"""Drawing batches from scores: Gumbel-top-B and its Plackett-Luce probability."""

from __future__ import annotations

import torch
from torch import Tensor


def draw_batches(scores: Tensor, size: int, count: int, generator: torch.Generator) -> Tensor:
    """[count, size] positions, each row drawn without replacement in order; p proportional to
    exp(scores) [N].
    """
    noise = torch.empty(count, len(scores), dtype=torch.float64, device=scores.device)
    noise.exponential_(generator=generator)
    tiny = torch.finfo(torch.float64).tiny
    keys = scores.detach().double() - noise.clamp_min(tiny).log()
    return keys.topk(size, dim=1, sorted=True).indices


def log_probability(scores: Tensor, batches: Tensor) -> Tensor:
    """[K] ordered Plackett-Luce log-probability of batches [K, B] under scores [N].

    sum over j of s_j - ln sum over i not yet drawn of exp(s_i): one reverse cumulative logsumexp
    over the rest and the batch. In double precision.
    """
    exact = scores.double()
    chosen = exact[batches]
    taken = torch.zeros(len(batches), len(scores), dtype=torch.bool, device=scores.device)
    taken.scatter_(1, batches, torch.ones_like(batches, dtype=torch.bool))
    if batches.shape[1] < len(scores):
        remaining = exact.expand(len(batches), -1).masked_fill(taken, -torch.inf)
        backwards = torch.cat([remaining.logsumexp(1, keepdim=True), chosen.flip(1)], dim=1)
        totals = backwards.logcumsumexp(1)[:, 1:].flip(1)
    else:
        totals = chosen.flip(1).logcumsumexp(1).flip(1)
    return (chosen - totals).sum(1)


def first_pick_entropy(scores: Tensor) -> Tensor:
    """[] entropy of softmax(scores [N]) in nats: how undecided the first pick is."""
    logs = torch.log_softmax(scores.double(), dim=0)
    return -(logs.exp() * logs).sum()

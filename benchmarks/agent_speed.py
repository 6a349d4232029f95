"""Time of a whole training of the agent: 2,200 iterations over 15,500 images for a batch of 1,000,
16 draws an iteration, lanes of 128; and where that time goes.

The reward is the service's: a value model fitted to 200 tilted records of a made-up pool with a
planted value, measured with noise. `--reward idw` reads it as the paper
does. `--quick`: 20 iterations. The agent trains on the processor, whatever the device.

Sampling is drawing the batches and their probability; the policy's share is the rest but the
reward: the walk there and back, the optimiser, the walk that gives the greedy batch.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from time import perf_counter, process_time
from typing import ParamSpec, TypeVar
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.lib.harness import Figures, Options, main
from benchmarks.lib.made_up import CLASSES, predictions, spread_of, tilted_table
from mgral_service.agent.reinforce import train_agent
from mgral_service.agent.sampling import draw_batches, log_probability
from mgral_service.domain.arrays import IntArray
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.records import Progress
from mgral_service.domain.specs import AgentSpec, TableAdvanced
from mgral_service.domain.value.features import agent_state
from mgral_service.domain.value.lookup import LookupTable
from mgral_service.domain.value.models import VALUE_MODELS
from mgral_service.domain.value.transport import standardise
from mgral_service.strategies.mgral.select import Reward

LOOP = "mgral_service.agent.reinforce"  # where parts of the training are timed
SEED = 0
LABELLED, CANDIDATES = 1_000, 15_500
BUDGET = 1_000
RECORDS = 200
NOISE = 2.0  # of the records' scores, in spreads of uniform batches
SPEC = AgentSpec(iterations=2200)
QUICK_ITERATIONS = 20
PRINT_EVERY = 100

P = ParamSpec("P")
R = TypeVar("R")


def measure(options: Options) -> Figures:
    if options.device != "cpu":
        sys.exit("train_agent runs on the processor: leave --device away")
    spec = replace(SPEC, iterations=QUICK_ITERATIONS) if options.quick else SPEC
    predicted, _ = predictions(LABELLED + CANDIDATES, np.random.default_rng(SEED))
    labelled, candidates = predicted.ids[:LABELLED], predicted.ids[LABELLED:]
    pool = CandidatePool(predicted, labelled, candidates, CLASSES, BUDGET)
    model = VALUE_MODELS[options.own.get("reward") or "gp"](TableAdvanced())
    model.fit(planted_table(pool))

    spent: defaultdict[str, float] = defaultdict(float)
    kind = spec.advanced.state
    states = standardise(agent_state(pool.predictions, len(CLASSES), kind))[pool.candidates]
    reward = timed(spent, "reward", Reward(model, pool))
    began = perf_counter(), process_time()
    with (
        patch(f"{LOOP}.draw_batches", timed(spent, "sampling", draw_batches)),
        patch(f"{LOOP}.log_probability", timed(spent, "sampling", log_probability)),
    ):
        train_agent(states, reward, BUDGET, spec, SEED, show)
    seconds, cpu = perf_counter() - began[0], process_time() - began[1]

    sampling, valuing = spent["sampling"] / seconds, spent["reward"] / seconds
    return {
        "minutes": seconds / 60,
        "iterations_per_s": spec.iterations / seconds,
        "share_policy": 1 - sampling - valuing,
        "share_sampling": sampling,
        "share_reward": valuing,
        "cpu_minutes": cpu / 60,
        "iterations": spec.iterations,
        "threads": torch.get_num_threads(),
    }


def planted_table(pool: CandidatePool) -> LookupTable:
    """RECORDS tilted batches whose value is the mean entropy of their images, with noise."""

    def worth(batch: IntArray) -> float:
        return float(pool.entropy.mean[batch].mean())

    rng = np.random.default_rng(SEED)
    _, spread = spread_of(pool, worth, rng)
    return tilted_table(pool, worth, RECORDS, NOISE * spread, rng)


def timed(spent: defaultdict[str, float], part: str, function: Callable[P, R]) -> Callable[P, R]:
    """The function, its seconds added to those of `part`."""

    def run(*arguments: P.args, **named: P.kwargs) -> R:
        began = perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent[part] += perf_counter() - began

    return run


def show(progress: Progress) -> None:
    if progress.done % PRINT_EVERY == 0 or progress.done == QUICK_ITERATIONS:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in progress.figures.items())
        print(f"{progress.done}/{progress.total}: {figures}", flush=True)


if __name__ == "__main__":
    flags = ArgumentParser(add_help=False)
    flags.add_argument("--reward", choices=sorted(VALUE_MODELS), help="value model; default gp")
    title = "a whole training of the agent, and where its time goes"
    main("agent_speed", title, measure, own=flags)

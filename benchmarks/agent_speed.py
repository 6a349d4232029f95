"""Time of a whole training of the agent: 2,200 iterations over 15,500 images for a batch of 1,000,
16 draws an iteration, lanes of 128, and where that time goes.

The reward is the product's: a value model fitted to 200 tilted records of a made-up observation,
whose scores are the batches' mean of a planted value, with noise. `--reward idw` reads it as the
paper does. `--quick`: 20 iterations. Runs on the processor, as `train_agent` does.

Sampling is drawing the batches and their probability; the policy's share is all but that and the
reward: the walk there and back, the optimiser, the walk that finds the greedy batch.
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

from benchmarks.harness import Figures, Options, main
from mgral_service.agent.reinforce import greedy, train_agent
from mgral_service.agent.sampling import draw_batches, log_probability
from mgral_service.domain import design
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Detections, PoolObservation
from mgral_service.domain.features import agent_state
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.records import LookupRecord, Progress
from mgral_service.domain.specs import AgentSpec, TableSpec
from mgral_service.domain.transport import batch_sketch, standardise
from mgral_service.domain.value import VALUE_MODELS

LOOP = "mgral_service.agent.reinforce"  # where parts of the training are timed
SEED = 0
LABELLED, OPEN = 1_000, 15_500
DIMENSION = 256
BUDGET = 1_000
RECORDS = 200
CLASSES = tuple(f"class {number}" for number in range(20))
MOST = 4  # detections an image
NOISE = 0.2  # of the records' scores, a share of their spread
SPEC = AgentSpec(draws=16, lane=128)
QUICK_ITERATIONS = 20
TOLD_EVERY = 100

P = ParamSpec("P")
R = TypeVar("R")


def measure(options: Options) -> Figures:
    if options.device != "cpu":
        sys.exit("train_agent runs on the processor: leave --device away")
    spec = replace(SPEC, iterations=QUICK_ITERATIONS) if options.quick else SPEC
    observation, planted = made_up()
    labelled, unlabelled = np.arange(LABELLED), np.arange(LABELLED, LABELLED + OPEN)
    points = standardise(observation.embeddings)
    table = TableSpec(value_model=options.own.get("reward") or "ridge")
    model = VALUE_MODELS[table.value_model](observation, labelled, CLASSES, table)
    model.fit(records(observation, points, labelled, unlabelled, planted))

    spent: defaultdict[str, float] = defaultdict(float)
    states = standardise(agent_state(observation, len(CLASSES), spec.state))[unlabelled]
    reward = timed(
        spent, "reward", lambda batches: model.estimate([unlabelled[b] for b in batches])
    )
    began = perf_counter(), process_time()
    with (
        patch(f"{LOOP}.draw_batches", timed(spent, "sampling", draw_batches)),
        patch(f"{LOOP}.log_probability", timed(spent, "sampling", log_probability)),
    ):
        agent = train_agent(states, reward, BUDGET, spec, SEED, tell)
    seconds, cpu = perf_counter() - began[0], process_time() - began[1]

    sampling, valuing = spent["sampling"] / seconds, spent["reward"] / seconds
    worth = planted[unlabelled] - planted[unlabelled].mean()
    best, gained = np.sort(worth)[-BUDGET:].mean(), worth[greedy(agent.scores, BUDGET)].mean()
    return {
        "minutes": seconds / 60,
        "iterations_per_s": spec.iterations / seconds,
        "share_policy": 1 - sampling - valuing,
        "share_sampling": sampling,
        "share_reward": valuing,
        "cpu_minutes": cpu / 60,
        "share_of_best": float(gained / best),
        "iterations": spec.iterations,
        "threads": torch.get_num_threads(),
    }


def made_up() -> tuple[PoolObservation, FloatArray]:
    """LABELLED + OPEN images with 0 to MOST detections each, and each one's planted value, mean 0:
    linear in its embedding and in the classes seen on it.
    """
    rng = np.random.default_rng(SEED)
    count = LABELLED + OPEN
    ids = tuple(f"{at:06d}" for at in range(count))
    factors = rng.standard_normal((count, 16))
    embeddings = factors @ rng.standard_normal((16, DIMENSION))
    embeddings += rng.standard_normal((count, DIMENSION))
    image = np.repeat(np.arange(count), rng.integers(0, MOST + 1, count))
    probs = rng.dirichlet(np.full(len(CLASSES) + 1, 0.2), len(image))
    boxes = np.tile([0.0, 0.0, 9.0, 9.0], (len(image), 1))
    labels, scores = probs[:, 1:].argmax(1), probs[:, 1:].max(1)
    detections = Detections(ids, image, boxes, labels, scores, probs)
    seen = np.bincount(image, rng.standard_normal(len(CLASSES))[labels], count)
    value = factors @ rng.standard_normal(16) + seen
    return PoolObservation(ids, embeddings, detections), value - value.mean()


def records(
    observation: PoolObservation,
    points: FloatArray,
    labelled: IntArray,
    unlabelled: IntArray,
    planted: FloatArray,
) -> LookupTable:
    """RECORDS tilted batches whose score, a fraction around 0.3, is their mean planted value with
    noise.
    """
    rng = np.random.default_rng(SEED)
    drawn = design.draw("tilted", RECORDS, BUDGET, observation, labelled, unlabelled, {}, rng)
    place = {name: at for at, name in enumerate(observation.ids)}
    batches = [np.array([place[name] for name in one.batch]) for one in drawn]
    worth = np.array([planted[batch].mean() for batch in batches])
    worth = (worth - worth.mean()) / worth.std()
    measured = 0.3 + 0.02 * (worth + NOISE * rng.standard_normal(RECORDS))
    rows = [
        LookupRecord(
            "speed",
            index,
            one.batch,
            tuple(batch_sketch(points, batch).tolist()),
            float(measured[index]),
            0,
            1.0,
            one.design,
        )
        for index, (one, batch) in enumerate(zip(drawn, batches, strict=True))
    ]
    return LookupTable.of(rows, observation.ids)


def timed(spent: defaultdict[str, float], part: str, function: Callable[P, R]) -> Callable[P, R]:
    """The function, its seconds added to those of `part`."""

    def run(*arguments: P.args, **named: P.kwargs) -> R:
        began = perf_counter()
        try:
            return function(*arguments, **named)
        finally:
            spent[part] += perf_counter() - began

    return run


def tell(progress: Progress) -> None:
    if progress.done % TOLD_EVERY == 0 or progress.done == QUICK_ITERATIONS:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in progress.figures.items())
        print(f"{progress.done}/{progress.total}: {figures}", flush=True)


if __name__ == "__main__":
    flags = ArgumentParser(add_help=False)
    flags.add_argument("--reward", choices=("ridge", "idw"), help="value model; ridge unless told")
    words = "a whole training of the agent, and where its time goes"
    main("agent_speed", words, measure, own=flags)

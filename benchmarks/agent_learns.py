"""Does the agent find a good batch where one is planted, and is the reward called unreliable where
there is none?

15,000 made-up images whose batches have a planted value: "additive", the mean over images of the
ranks of entropy and novelty, or "coverage", which adds how far the batch's true objects make up for
classes that are rare among the labelled images. 100 tilted batches of 1,000 are measured with noise
of twice the spread of uniform batches. Share: how far the agent's batch gets from a uniform batch
to the best that a search finds which knows the value.

A training ends early when PATIENCE values of the greedy batch, one every ten iterations, bring
nothing better. It is stored in `out/benchmarks/agent_learns.jsonl`, so an interrupted run goes on
(delete the file when the agent or the value model has changed). Noise alone: in how many of 100
tables the interval of the reliability reaches zero. `--quick`: one world of 3,000 images, batches
of 200, 300 iterations, 20 tables.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from scipy.stats import rankdata

from benchmarks.lib.harness import OUT, Figures, Options, main
from benchmarks.lib.made_up import CLASSES, CLUSTERS, predictions, spread_of, tilted_table
from benchmarks.lib.stored import results
from mgral_service.agent.reinforce import greedy, train_agent
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.candidate_pool import CandidatePool
from mgral_service.domain.specs import AgentSpec
from mgral_service.domain.value.features import agent_state
from mgral_service.domain.value.gp import GaussianProcess
from mgral_service.domain.value.reliability import rank_reliability
from mgral_service.domain.value.transport import standardise
from mgral_service.strategies.mgral.select import Reward

LABELLED, RECORDS, NOISE = 200, 100, 2.0
TABLES, QUICK_TABLES = 100, 20
PATIENCE = 20
STORE = OUT / "agent_learns.jsonl"
FULL = (15_000, 1_000, AgentSpec(iterations=2200))  # images, budget, training
QUICK = (3_000, 200, AgentSpec(iterations=300))
WORLDS = (0, 1, 2)
SCALE = 0.1  # mAP of a rank from 0 to 1, and of a logarithm of the number of objects


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """A pool, and what cannot be seen in it.

    values    [N] of each image, fractions of mAP
    objects   [N, C] true objects
    labelled  [C] objects of the labelled images, and one more
    """

    pool: CandidatePool
    values: FloatArray
    objects: FloatArray
    labelled: FloatArray

    def additive(self, batch: IntArray) -> float:
        return float(self.values[batch].mean())

    def coverage(self, batch: IntArray) -> float:
        return self.additive(batch) + float(self.deficit(self.objects[batch].sum(axis=0)))

    def deficit(self, counts: FloatArray) -> FloatArray:
        """[...] what objects [..., C] of a batch are worth by class."""
        return np.asarray(SCALE * np.log1p(counts / self.labelled).mean(axis=-1))


def planted(images: int, budget: int, seed: int) -> Planted:
    """LABELLED images of one half of the clusters, and `images` candidates."""
    predicted, cluster = predictions(images + LABELLED, np.random.default_rng(seed))
    labelled = np.flatnonzero(cluster < CLUSTERS // 2)[:LABELLED]
    names = np.array(predicted.ids)
    pool = CandidatePool(predicted, names[labelled], np.delete(names, labelled), CLASSES, budget)
    detections = predicted.detections
    objects = np.zeros((len(names), len(CLASSES)))
    np.add.at(objects, (detections.image, detections.labels), 1.0)
    ranks = rankdata(np.column_stack([pool.entropy.mean, pool.novelty]), axis=0).mean(axis=1)
    values = SCALE * ranks / len(names)
    return Planted(pool, values, objects, 1.0 + objects[labelled].sum(axis=0))


def best_additive(world: Planted) -> IntArray:
    candidates = world.pool.candidates
    return candidates[np.argsort(-world.values[candidates])[: world.pool.batch_size]]


def best_coverage(world: Planted) -> IntArray:
    """Greedy on the true value, which is submodular."""
    candidates, size = world.pool.candidates, world.pool.batch_size
    objects, values = world.objects[candidates], world.values[candidates] / size
    chosen: list[int] = []
    counts = np.zeros(objects.shape[1])
    for _ in range(size):
        gain = world.deficit(counts + objects) + values
        gain[chosen] = -np.inf
        chosen.append(int(gain.argmax()))
        counts += objects[chosen[-1]]
    return candidates[chosen]


PLANTED: Mapping[
    str, tuple[Callable[[Planted, IntArray], float], Callable[[Planted], IntArray]]
] = {
    "additive": (Planted.additive, best_additive),
    "coverage": (Planted.coverage, best_coverage),
}
"""name -> (value of a batch, search that knows it)"""


@dataclass(frozen=True, slots=True)
class Task:
    """One training of the agent; value: a name in PLANTED."""

    value: str
    seed: int
    images: int
    budget: int
    spec: AgentSpec

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


def learned(task: Task) -> dict[str, float]:
    """The share that the agent's batch reaches, and the iterations of its training."""
    world = planted(task.images, task.budget, task.seed)
    pool = world.pool
    value, search = PLANTED[task.value]
    worth = partial(value, world)
    rng = np.random.default_rng(task.seed)
    chance, spread = spread_of(pool, worth, rng)
    model = GaussianProcess()
    model.fit(tilted_table(pool, worth, RECORDS, NOISE * spread, rng))
    kind = task.spec.advanced.state
    states = standardise(agent_state(pool.predictions, len(CLASSES), kind))[pool.candidates]
    agent = train_agent(
        states,
        Reward(model, pool),
        task.budget,
        task.spec,
        task.seed,
        lambda progress: None,
        patience=PATIENCE,
    )
    batch = pool.candidates[greedy(agent.scores, task.budget)]
    share = (worth(batch) - chance) / (worth(search(world)) - chance)
    return {"share": share, "iterations": float(len(agent.history))}


def flagged(pool: CandidatePool, tables: int) -> float:
    """Share of tables of pure noise whose reward is called unreliable."""
    table = tilted_table(pool, lambda batch: 0.0, RECORDS, 0.0, np.random.default_rng(0))
    model = GaussianProcess()
    unreliable = 0
    for seed in range(tables):
        rng = np.random.default_rng(seed)
        noise = replace(table, scores=0.4 + 0.02 * rng.standard_normal(RECORDS))
        model.fit(noise)
        rank = rank_reliability(model.held_out(), noise.gains(), noise.folds, rng)
        unreliable += rank is None or not rank.informed
    return unreliable / tables


def measure(options: Options) -> Figures:
    images, budget, spec = QUICK if options.quick else FULL
    worlds = WORLDS[:1] if options.quick else WORLDS
    tasks = {
        (value, seed): Task(value, seed, images, budget, spec)
        for value in PLANTED
        for seed in worlds
    }
    stored = (
        {task.key: learned(task) for task in tasks.values()}
        if options.quick
        else results(STORE, {task.key: task for task in tasks.values()}, learned)
    )
    figures: dict[str, float] = {}
    for value in PLANTED:
        reached = [stored[tasks[value, seed].key] for seed in worlds]
        figures |= {
            f"{value}_{name}": float(np.mean([result[name] for result in reached]))
            for name in ("share", "iterations")
        }
    tables = QUICK_TABLES if options.quick else TABLES
    pool = planted(images, budget, len(WORLDS)).pool
    return {**figures, "noise_flagged_share": flagged(pool, tables)}


if __name__ == "__main__":
    main("agent_learns", "planted values: what the agent finds of them", measure)

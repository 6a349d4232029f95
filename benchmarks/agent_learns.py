"""Does the agent find a good batch where one is planted, and say so where there is none?

15,000 made-up images whose batches have a planted value: additive (a mean of per-image values), or
additive and saturating in the objects of each class. 100 tilted batches of 1,000 are measured with
noise of twice the spread of uniform batches. Share: how far the agent's greedy batch, and the
portfolio's, get from a uniform batch to the best that a search finds which knows the value. (The
ridge's class features saturate in the form of the planted value: that part is an easy case.)

A training ends early when PATIENCE values of the greedy batch, one every ten iterations, bring
nothing better; it is kept in `out/benchmarks/agent_learns.jsonl`, so an interrupted run goes on
(delete it when the agent's or the ridge's code has changed). Noise alone: in how many of 100 tables
the reliability's interval reaches zero. `--quick`: 3,000 images, batches of 200, 300 iterations.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np
from scipy.stats import ortho_group

from benchmarks.harness import HERE, Figures, Options, kept_lines, main
from benchmarks.trainings import one_thread
from mgral_service.agent.reinforce import greedy, train_agent
from mgral_service.domain import design, transport
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Detections, PoolObservation
from mgral_service.domain.features import BatchFeatures, agent_state
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.records import Progress
from mgral_service.domain.ridge import Ridge
from mgral_service.domain.specs import AgentSpec

DIMENSION, CLASSES, CLUSTERS = 256, 20, 40
LABELLED, RECORDS, NOISE = 200, 100, 2.0
TABLES = 100
PATIENCE, TOLD_EVERY = 20, 100
KEPT = HERE.parent / "out" / "benchmarks" / "agent_learns.jsonl"
FULL = (15_000, 1_000, AgentSpec())  # images, budget, training
QUICK = (3_000, 200, AgentSpec(iterations=300))
WORLDS = (3, 4, 5)  # the ridge was developed on 0, 1 and 2
Worth = Callable[[IntArray], float]
Search = Callable[["Planted", int], IntArray]


@dataclass(frozen=True, slots=True, eq=False)
class Planted:
    """What a detector would see, and what it cannot: per-image values [N], objects [N, C], and the
    objects [C] of a uniform batch, at least one.
    """

    seen: PoolObservation
    values: FloatArray
    objects: FloatArray
    typical: FloatArray

    @property
    def pool(self) -> IntArray:
        return np.arange(LABELLED, len(self.values))

    def additive(self, batch: IntArray) -> float:
        return float(self.values[batch].mean())

    def coverage(self, batch: IntArray) -> float:
        """Half of it additive; a class is worth 1 - exp(-objects / a uniform batch's)."""
        return self.additive(batch) + float(self.saturated(self.objects[batch].sum(axis=0)))

    def saturated(self, counts: FloatArray) -> FloatArray:
        """[...] of counts [..., C] of a batch of the usual size."""
        return np.asarray((1.0 - np.exp(-counts / self.typical)).mean(axis=-1))


def planted(images: int, budget: int, seed: int) -> Planted:
    """Clusters of images with classes of their own; rare classes are a hundred times rarer.

    Embeddings have the spectrum of real ones (of vehicles: the k-th variance falls as k^-1.2); the
    value is linear in them along a random direction.
    """
    rng = np.random.default_rng(seed)
    home = rng.integers(CLUSTERS, size=images)
    points = rng.normal(size=(CLUSTERS, DIMENSION))[home] + rng.normal(size=(images, DIMENSION))
    points *= np.arange(1, DIMENSION + 1) ** -0.6
    values = points @ rng.normal(size=DIMENSION)
    points = points @ ortho_group.rvs(DIMENSION, random_state=rng)
    often = np.geomspace(3.0, 0.03, CLASSES) * rng.dirichlet(np.full(CLASSES, 0.3), CLUSTERS)
    objects = rng.poisson(often[home] * 3).astype(np.float64)
    typical = np.maximum(objects.mean(axis=0) * budget, 1.0)
    values = 0.05 * (values - values.mean()) / values.std()
    return Planted(observed(points, objects, rng), values, objects, typical)


def observed(points: FloatArray, objects: FloatArray, rng: np.random.Generator) -> PoolObservation:
    """A detection for each object, of its class with a probability around .7."""
    ids = tuple(f"img_{at:06d}" for at in range(len(points)))
    image, label = np.nonzero(objects)
    image, label = np.repeat([image, label], objects[image, label].astype(np.int64), axis=1)
    probs = rng.dirichlet(np.full(CLASSES + 1, 0.1), size=len(image)) * 0.3
    probs[np.arange(len(image)), label + 1] += 0.7
    boxes = np.tile([0.0, 0.0, 9.0, 9.0], (len(image), 1))
    found = Detections(ids, image, boxes, label, probs[np.arange(len(image)), label + 1], probs)
    return PoolObservation(ids, points, found)


def table_of(world: Planted, worth: Worth, budget: int, seed: int) -> LookupTable:
    """Tilted batches, measured with noise."""
    rng = np.random.default_rng([seed, 1])
    labelled = np.arange(LABELLED)
    place = {name: at for at, name in enumerate(world.seen.ids)}
    drawn = design.draw("tilted", RECORDS, budget, world.seen, labelled, world.pool, {}, rng)
    batches = tuple(np.array([place[name] for name in one.batch]) for one in drawn)
    truth = np.array([worth(batch) for batch in batches])
    spread = np.std([worth(rng.permutation(world.pool)[:budget]) for _ in range(200)])
    points = transport.standardise(world.seen.embeddings)
    return LookupTable(
        batches,
        np.stack([transport.batch_sketch(points, batch) for batch in batches]),
        truth + NOISE * spread * rng.standard_normal(RECORDS),
        tuple(one.design for one in drawn),
        np.arange(RECORDS),
        np.ones(RECORDS),
        tuple("semi_supervised" for _ in drawn),
        np.zeros(RECORDS, dtype=np.int64),
        np.ones(RECORDS),
    )


def best_additive(world: Planted, budget: int) -> IntArray:
    return world.pool[np.argsort(-world.values[world.pool])[:budget]]


def best_coverage(world: Planted, budget: int) -> IntArray:
    """Greedy on the true value, which is submodular."""
    left = world.pool.tolist()
    chosen: list[int] = []
    counts = np.zeros(CLASSES)
    open_ = np.ones(len(world.values), dtype=np.bool_)
    open_[:LABELLED] = False
    for _ in range(min(budget, len(left))):
        gain = world.saturated(counts + world.objects) - world.saturated(counts)
        total = np.where(open_, gain + world.values / budget, -np.inf)
        at = int(total.argmax())
        chosen.append(at)
        counts += world.objects[at]
        open_[at] = False
    return np.array(chosen)


PLANTED: Mapping[str, tuple[Callable[[Planted, IntArray], float], Search]] = {
    "additive": (Planted.additive, best_additive),
    "coverage": (Planted.coverage, best_coverage),
}


@dataclass(frozen=True, slots=True)
class Task:
    """One training of the agent; worth: one of PLANTED."""

    worth: str
    seed: int
    images: int
    budget: int
    spec: AgentSpec

    @property
    def key(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Found:
    """Shares of the agent's batch, and of the better by estimate of the agent's and the ridge's."""

    agent: float
    portfolio: float
    iterations: int


def learnt(task: Task) -> Found:
    world = planted(task.images + LABELLED, task.budget, task.seed)
    value, search = PLANTED[task.worth]
    worth = partial(value, world)
    model = Ridge(BatchFeatures(world.seen, np.arange(LABELLED), [str(c) for c in range(CLASSES)]))
    model.fit(table_of(world, worth, task.budget, task.seed))
    pool = world.pool

    def reward(batches: Sequence[IntArray]) -> tuple[FloatArray, FloatArray]:
        return model.estimate([pool[batch] for batch in batches])

    def tell(progress: Progress) -> None:
        if progress.done % TOLD_EVERY == 0:
            where = f"{task.worth}, world {task.seed}: {progress.done} of {progress.total}"
            print(f"{where}, greedy {progress.figures['greedy']:.4f}", file=sys.stderr, flush=True)

    states = transport.standardise(agent_state(world.seen, CLASSES, task.spec.state))[pool]
    agent = train_agent(states, reward, task.budget, task.spec, task.seed, tell, patience=PATIENCE)
    batch = pool[greedy(agent.scores, task.budget)]
    ridge = model.fill(pool, task.budget)[0][: task.budget]
    means, sds = model.estimate([batch, ridge])
    winner = [batch, ridge][int(np.argmax(means - task.spec.caution * sds))]
    rng = np.random.default_rng([task.seed, 2])
    chance = float(np.mean([worth(rng.permutation(pool)[: task.budget]) for _ in range(200)]))
    scale = worth(search(world, task.budget)) - chance
    agent_share, portfolio_share = ((worth(some) - chance) / scale for some in (batch, winner))
    return Found(agent_share, portfolio_share, len(agent.history))


def trained(tasks: Sequence[Task]) -> list[Found]:
    """In the order of `tasks`; kept ones at once, others on every core, a thread each."""
    kept = {told["key"]: Found(**told["found"]) for told in kept_lines(KEPT)}
    KEPT.parent.mkdir(parents=True, exist_ok=True)
    with (
        ProcessPoolExecutor(None, multiprocessing.get_context("spawn"), one_thread) as pool,
        KEPT.open("a", encoding="utf-8") as file,
    ):
        todo = {pool.submit(learnt, task): task for task in tasks if task.key not in kept}
        for done in as_completed(todo):
            task, found = todo[done], done.result()
            print(f"{task.worth}, world {task.seed}: {found}", flush=True)
            kept[task.key] = found
            file.write(json.dumps({"key": task.key, "found": asdict(found)}) + "\n")
            file.flush()
    return [kept[task.key] for task in tasks]


def flagged(world: Planted, budget: int) -> float:
    """Share of tables of pure noise that are called uninformative."""
    table = table_of(world, lambda batch: 0.0, budget, 0)
    model = Ridge(BatchFeatures(world.seen, np.arange(LABELLED), [str(c) for c in range(CLASSES)]))
    found = 0
    for seed in range(TABLES):
        rng = np.random.default_rng(seed)
        model.fit(replace(table, scores=0.4 + 0.02 * rng.standard_normal(RECORDS)))
        found += not model.reliability(rng).informed
        print(f"\r{seed + 1} tables ", end="", file=sys.stderr, flush=True)
    return found / TABLES


def measure(options: Options) -> Figures:
    images, budget, spec = QUICK if options.quick else FULL
    worlds = WORLDS[:1] if options.quick else WORLDS
    tasks = [Task(worth, seed, images, budget, spec) for seed in worlds for worth in PLANTED]
    every = [learnt(task) for task in tasks] if options.quick else trained(tasks)
    figures: dict[str, float] = {}
    for at, worth in enumerate(PLANTED):
        found = every[at :: len(PLANTED)]
        figures |= {
            f"{worth}_share": float(np.mean([one.agent for one in found])),
            f"{worth}_portfolio_share": float(np.mean([one.portfolio for one in found])),
            f"{worth}_iterations": float(np.mean([one.iterations for one in found])),
        }
    return {
        **figures,
        "noise_flagged_share": flagged(planted(images + LABELLED, budget, 9), budget),
    }


if __name__ == "__main__":
    main("agent_learns", "planted values: what the agent finds of them", measure)

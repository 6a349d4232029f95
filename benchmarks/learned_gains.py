"""What batches are worth that a cycle's value model and its agent choose, alone and joined with
what chooses by default, on training images alone.

The pools are those of `compare` at their start, but of seeds that it does not use. A third of a
pool is set aside to score; "mgral" runs a whole cycle on the rest, as it does in `compare`, and
OTHER reads its table as well. Then each choice is made in PARTS drawn anew of that rest (SHARE of
it): the cycle's own ("mgral"), that of either value model, the agent's, the default's, another
strategy's or two so `joined`. A short proxy is
trained on the labelled images and the batch, with its labels; its AP50 over that of uniform batches
of the same part is the gain. Pools that are done are kept (`--kept`), so an interrupted run goes
on; delete them when code of the cycle has changed.
`--quick`: digits, one seed, trainings of 2 steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.compare import OUT, WARM, World
from benchmarks.gains import (
    UNIFORM,
    each_pool,
    gain_figures,
    own_flags,
    pools,
    proxy_score,
    setting,
)
from benchmarks.harness import Figures, Options, kept_lines, main
from benchmarks.runs import Notebook, place, workbench
from mgral_service import cycle
from mgral_service.detectors.local import LocalProxyTrainer, TaskDetector
from mgral_service.domain.records import AGENT
from mgral_service.domain.seeds import Purpose, seed_of, stream
from mgral_service.metrics import METRICS
from mgral_service.strategies import rerank
from mgral_service.strategies.trials import DEFAULT, together

PARTS, SHARE = 4, 0.8
UNIFORMS = 3  # batches of a part
REPEATS = 2  # trainings of a batch
MODEL = WARM.value_model
OTHER: Literal["gp"] = "gp"
ALONE = (MODEL, AGENT, DEFAULT, together(MODEL), "entropy", "class_balance")
BY_OTHER = (OTHER, together(OTHER))
JOINED = ((MODEL, "entropy"), (OTHER, "entropy"), (AGENT, DEFAULT), (DEFAULT, "class_balance"))


@dataclass(frozen=True, slots=True)
class Found:
    """What a pool gave. setting: a digest of the world's; chosen: whose batch the cycle chose;
    spearman, low, high: its reward's reliability; scores: AP50 by choice, one a part; of "uniform"
    the means.
    """

    setting: str
    world: str
    seed: int
    chosen: str
    spearman: float
    low: float
    high: float
    scores: Mapping[str, Sequence[float]]

    def gain(self, choice: str) -> float:
        return float(np.mean(self.scores[choice]) - np.mean(self.scores[UNIFORM]))


class Memory(Notebook):
    """A cycle's journal that keeps what its agent left as well."""

    agent: Mapping[str, Any]
    winner: str

    def keep_agent(self, arrays: Mapping[str, Any], winner: str) -> None:
        self.agent, self.winner = arrays, winner


def read_otherwise(told: Memory, bench: cycle.Workbench) -> Memory:
    """A cycle that has all the records of another one, and so trains none."""
    journal, seen, weights = Memory(), told.observation(), told.detector()
    assert seen is not None
    assert weights is not None
    journal.keep_observation(seen)
    journal.keep_detector(weights)
    for record in told.records():
        journal.keep_record(record)
    cycle.run(bench, journal)
    return journal


def joined(orders: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The same images in the order of their mean ranks; ties by id."""
    ranks: dict[str, int] = dict.fromkeys(orders[0], 0)
    for order in orders:
        for rank, name in enumerate(order):
            ranks[name] += rank
    return tuple(sorted(ranks, key=lambda name: (ranks[name], name)))


def worth(world: World, seed: int, device: str) -> Found:
    job = world.job("mgral", seed, device)
    spec, here = job.spec, place(job.world, job.scenes, job.spec.detector.size)
    split, truth, metric = here.split(job), here.data.annotations, METRICS["ap50"]()
    classes, own = here.data.classes, seed_of(seed, Purpose.DETECTOR)
    rng = np.random.default_rng([seed, 80])
    pool = rng.permutation(sorted(split.unlabelled)).tolist()
    scoring, pool = tuple(pool[: len(pool) // 3]), pool[len(pool) // 3 :]
    split = replace(split, unlabelled=tuple(sorted(pool)))
    detector = TaskDetector(spec.detector, classes, here.images, metric, own, device)
    journal = Memory()
    cycle.run(workbench(job, here, split, detector), journal)
    seen, report, weights = journal.observation(), journal.report(), journal.detector()
    if seen is None or report is None or report.evidence is None or weights is None:
        raise RuntimeError(f"the cycle of {world.name}, seed {seed}, left nothing to choose by")
    other = replace(job, spec=replace(spec, table=replace(spec.table, value_model=OTHER)))
    otherwise = read_otherwise(journal, workbench(other, here, split, detector))

    def order(name: str, by: Memory = journal) -> tuple[str, ...]:
        draws = stream(seed, Purpose.SELECT)
        return rerank(spec, split, seen, classes, by.agent, name, len(pool), draws).ids

    orders = {"mgral": order(journal.winner), **{name: order(name) for name in ALONE}}
    orders |= {name: order(name, otherwise) for name in BY_OTHER}
    orders |= {"_and_".join(some): joined([orders[one] for one in some]) for some in JOINED}
    table = replace(spec.table, repeats=REPEATS)
    trainer = LocalProxyTrainer(
        spec.detector, table, classes, here.images, truth, scoring, metric, device
    )

    def score(batch: Sequence[str]) -> float:
        return proxy_score(trainer, (*split.labelled, *batch), scoring, seed, weights)

    scores: dict[str, list[float]] = {name: [] for name in (UNIFORM, *orders)}
    for _ in range(PARTS):
        part = {*rng.permutation(pool)[: round(SHARE * len(pool))].tolist()}
        uniform = [rng.permutation(sorted(part))[: spec.budget] for _ in range(UNIFORMS)]
        scores[UNIFORM].append(float(np.mean([score(batch.tolist()) for batch in uniform])))
        for name, whole in orders.items():
            scores[name].append(score([one for one in whole if one in part][: spec.budget]))
    reward = report.evidence.reliability
    return Found(
        setting(world, device),
        world.name,
        seed,
        journal.winner,
        reward.spearman,
        reward.low,
        reward.high,
        scores,
    )


def figures_of(found: Sequence[Found]) -> dict[str, float]:
    """Gains over uniform, and how often each chose."""
    worlds = {one.world: [each for each in found if each.world == one.world] for one in found}
    chosen = [one.chosen for one in found]
    figures = {f"chosen_{name}": float(chosen.count(name)) for name in sorted({*chosen})}
    for choice in (name for name in found[0].scores if name != UNIFORM):
        gained = {name: np.array([one.gain(choice) for one in worlds[name]]) for name in worlds}
        figures |= gain_figures(choice, gained)
    return figures


def measure(options: Options) -> Figures:
    device = options.device
    file: Path = options.own["kept"] or OUT / f"learned_gains{'-quick' * options.quick}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = [Found(**told) for told in kept_lines(file)]
    done = {(one.setting, one.seed): one for one in kept}
    every = pools(options)
    todo = [(world, seed) for world, seed in every if (setting(world, device), seed) not in done]
    for _, one in each_pool(worth, todo, device):
        done[one.setting, one.seed] = one
        with file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(asdict(one)) + "\n")
    return figures_of([done[setting(world, device), seed] for world, seed in every])


def start(arguments: Sequence[str] | None = None) -> None:
    words = "AP50 gains over uniform of learned batches on training images, by short proxies"
    main("learned_gains", words, measure, arguments, own_flags("learned_gains"))


if __name__ == "__main__":
    start()

"""Does a value model rank batches it has not seen as their labels will?

Beside 40 labelled images, as in a first cycle, and beside 120. Truth: batches of 40 of the pool,
uniform and tilted, trained with their labels beside all labelled images, measured twice. A
measurement, and a record of a table, is the mean of four short trainings with seeds of their own.
Estimates: from tables of 16, 32 and 64 records, uniform or tilted, with batches of the pool without
labels ("semi_supervised"), or with hindsight of batches of the scoring images ("scoring") or, where
they are many, of the labelled ones ("labelled"), read by each value model. All records teach, where
in a cycle half of a tilted table of scoring images tries strategies. "scoring_ap30": proxies of
tilted batches are scored by AP30; truth is AP50 throughout. "both": half of the records from each
of the tilted tables of "scoring" and "semi_supervised", all of which count, whatever the
surrogate's fidelity. "told" is how reliable the model calls itself, as a cycle's report does.
"own" is a mark no table can be: how the held-out batches, once labelled, estimate each other,
although they share images. The ceiling is what an estimate without fault would reach against a
truth of that noise: from seed to seed, and (dotted; "images") from one half of the scoring images
to the other as well, as what a batch brings on those that score is not what it brings on others.
Intervals are of the 48 batches alone, as if table and scoring images were given, so they are too
narrow.

Trainings are kept in a folder (`--kept`), so an interrupted run goes on; delete those of a table
when the code of its design has changed. The table and the figure lie beside them.
`--kept benchmarks/results/reward_fidelity` goes on from what the figures in README.md are of.
`--quick`: 4 and 8 records, 6 batches, 2 steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from matplotlib.figure import Figure

from benchmarks.fidelity_site import BUDGET, QUICK, WORLDS, Scale, Site, Source
from benchmarks.fidelity_tables import beside, counted, thinned
from benchmarks.harness import HERE, Figures, Options, main
from benchmarks.proxy_throughput import cluster
from benchmarks.ranking import Agreement, between, spreads, within
from benchmarks.trainings import one_thread
from mgral_service.domain import design
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.ports import Query, ValueModel
from mgral_service.domain.records import DesignedBatch, LookupRecord, Progress, ProxySpec
from mgral_service.domain.specs import CycleSpec
from mgral_service.domain.value import VALUE_MODELS
from mgral_service.table import Filling

DESIGNS: tuple[Literal["uniform", "tilted"], ...] = ("uniform", "tilted")
SOURCES: tuple[Source, ...] = ("scoring", "scoring_ap30", "labelled", "semi_supervised", "both")
STYLES = {
    "scoring": "solid",
    "scoring_ap30": "dashdot",
    "labelled": "dashed",
    "semi_supervised": "dotted",
    "both": (0, (6, 1, 1, 1, 1, 1)),
}
TILTED_ONLY = ("scoring_ap30", "both")
Model = Literal["idw", "ridge", "gp"]
MODELS: tuple[Model, ...] = ("idw", "ridge", "gp")
MEASURED = 2  # times each held-out batch
FIRST_SEED = 7  # of the truth
OUT = HERE.parent / "out" / "benchmarks" / "reward_fidelity"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which parts are measured, and where trainings are kept."""

    worlds: Sequence[str]
    sources: Sequence[Source]
    scale: Scale
    folder: Path

    def tables(self, world: str) -> Iterator[tuple[Source, Literal["uniform", "tilted"]]]:
        sources = [one for one in WORLDS[world].sources if one in self.sources]
        for source, kind in product(sources, DESIGNS):
            if kind == "tilted" or source not in TILTED_ONLY:
                yield source, kind

    @property
    def labelled(self) -> str:
        """How many images are, in the worlds asked for."""
        return "-".join(map(str, sorted({WORLDS[world].labelled for world in self.worlds})))

    def lines(self, world: str) -> Iterator[tuple[Source, str, Model]]:
        return ((*table, model) for table, model in product(self.tables(world), MODELS))


def own_flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--world", nargs="+", choices=tuple(WORLDS), help="default: all")
    parser.add_argument("--source", nargs="+", choices=SOURCES, help="default: all")
    parser.add_argument("--kept", type=Path, help="default: out/benchmarks/reward_fidelity")
    return parser


def measure(options: Options) -> Figures:
    flags = options.own
    asked = Asked(
        flags["world"] or tuple(WORLDS)[: 2 if options.quick else None],
        flags["source"] or SOURCES,
        QUICK if options.quick else Scale(),
        flags["kept"] or OUT,
    )
    one_thread()  # as the proxies: a detector fitted by two sees other things
    figures: dict[str, float] = {}
    ray: AbstractContextManager[None] = nullcontext()
    if find_spec("ray") is not None and options.device == "cpu":
        ray = cluster()
    with ray:
        for name in asked.worlds:
            site = Site(name, asked.scale, options.device, asked.folder)
            truth = held_out(site)
            tables: dict[tuple[Source, str], LookupTable] = {
                (source, kind): table_of(site, source, kind) for source, kind in asked.tables(name)
            }
            figures |= compared(site, truth, tables) | own(site, truth)
    best = max((key for key in figures if key.endswith("_all_spearman")), key=figures.__getitem__)
    print(f"\nbest: {best}")
    (asked.folder / f"table-{asked.labelled}.md").write_text(tabled(figures, asked), "utf-8")
    draw(figures, asked)
    return {
        **figures,
        "spearman_best": figures[best],
        "ceiling": figures[f"{best.partition('_')[0]}_all_ceiling"],
        "images_ceiling": figures[f"{best.partition('_')[0]}_all_images_ceiling"],
    }


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Batches as positions; their scores [batches, MEASURED] once labelled, of which each column
    has a seed of its own; and the same two trainings scored by one half of the scoring images each.
    """

    batches: Sequence[IntArray]
    scores: FloatArray
    halves: FloatArray

    def __getitem__(self, rows: slice) -> HeldOut:
        return HeldOut(self.batches[rows], self.scores[rows], self.halves[rows])


def held_out(site: Site) -> dict[str, HeldOut]:
    """By design, and all together."""
    drawn: list[DesignedBatch] = []
    for turn, kind in enumerate(DESIGNS):
        drawn += design.draw(
            kind,
            site.scale.held_out,
            BUDGET,
            site.seen,
            np.arange(site.labelled),
            site.places(site.pool),
            {},
            np.random.default_rng([99, turn]),
        )
    # a batch drawn when the detector saw other things keeps its scores
    before = {one.index // MEASURED: one.batch for one in site.ledger("truth").records()}
    drawn = [replace(one, batch=before.get(at, one.batch)) for at, one in enumerate(drawn)]
    scoring = np.random.default_rng(99).permutation(sorted(site.world.scoring)).tolist()
    halves = [tuple(scoring[part::MEASURED]) for part in range(MEASURED)]
    every = HeldOut(
        [site.places(one.batch) for one in drawn],
        measured(site, "truth", drawn, [()] * MEASURED),
        measured(site, "halves", drawn, halves),
    )
    half = site.scale.held_out
    return {"uniform": every[:half], "tilted": every[half:], "all": every}


def measured(
    site: Site, what: str, drawn: Sequence[DesignedBatch], scoring: Sequence[tuple[str, ...]]
) -> FloatArray:
    """[batches, MEASURED] scores of batches with their labels, the n-th by `scoring[n]`; (): by all
    scoring images.
    """
    ledger = site.ledger(what)
    have = {one.index for one in ledger.records()}
    seeds = [FIRST_SEED + turn * site.scale.repeats for turn in range(MEASURED)]
    specs = [
        ProxySpec(
            at * MEASURED + turn, (*site.world.labelled, *one.batch), (), seed, 0, scoring[turn]
        )
        for at, one in enumerate(drawn)
        for turn, seed in enumerate(seeds)
    ]
    todo = [one for one in specs if one.index not in have]
    for result in site.proxies.train(todo, {0: site.weights(site.world.labelled)}):
        assert result.score is not None, result.cause
        one = drawn[result.index // MEASURED]
        ledger.keep_record(
            LookupRecord(
                what,
                result.index,
                one.batch,
                (),
                result.score,
                seeds[result.index % MEASURED],
                result.seconds,
                one.design,
            )
        )
        ledger.progress(Progress(what, len(ledger.records()), len(specs)))
    for record in ledger.records():
        assert record.batch == drawn[record.index // MEASURED].batch, f"{what} is of other batches"
    return np.array([one.score for one in ledger.records()]).reshape(-1, MEASURED)


@cache  # that of both sources is made of the others
def table_of(
    site: Site,
    source: Source,
    kind: Literal["uniform", "tilted"],
) -> LookupTable:
    """The largest table; of both sources as large a one of each."""
    if source == "both":
        return beside(table_of(site, "scoring", kind), table_of(site, "semi_supervised", kind))
    records = max(site.scale.records)
    table = replace(site.table_from(source), records=records, design=kind)
    spec = CycleSpec(site.name, BUDGET, table=table)
    query = Query(spec, site.split, site.seen_for(source), site.world.data.classes)
    ledger = site.ledger(f"{source}-{kind}")
    return Filling("fidelity", query, site.rewarded(source), ledger, trying=False).fill()


def compared(
    site: Site,
    truth: Mapping[str, HeldOut],
    tables: Mapping[tuple[Source, str], LookupTable],
) -> dict[str, float]:
    figures: dict[str, float] = {}
    for kind, some in truth.items():
        noise, spread = spreads(some.scores)
        figures[f"{site.name}_{kind}_seed_spread"] = noise
        figures[f"{site.name}_{kind}_batch_spread"] = spread
        for what, scores in (("", some.scores), ("images_", some.halves)):
            own = within(scores)
            most = Agreement(*(ceiling(one, MEASURED) for one in (own.value, own.low, own.high)))
            figures |= own.figures(f"{site.name}_{kind}_own_{what}agreement")
            figures |= most.figures(f"{site.name}_{kind}_{what}ceiling")
    for (source, design_of), whole in tables.items():
        for records in site.scale.records:
            for model in MODELS:
                made = fitted(site, thinned(whole, records), model, site.seen_for(source))
                name = f"{site.name}_{source}_{design_of}_{records}_{model}"
                told = made.reliability(np.random.default_rng(0))
                figures[f"{name}_told"] = told.spearman
                figures |= {f"{name}_told_low": told.low, f"{name}_told_high": told.high}
                for kind, some in truth.items():
                    estimates = made.estimate(some.batches)[0]
                    found: Agreement = between(
                        estimates[:, None], some.scores.mean(axis=1, keepdims=True)
                    )
                    figures |= found.figures(f"{name}_{kind}_spearman")
    return figures


def own(site: Site, truth: Mapping[str, HeldOut]) -> dict[str, float]:
    """The held-out batches as a table, each estimated from all others."""
    drawn = [
        (kind, tuple(site.seen.ids[at] for at in batch), float(scores.mean()))
        for kind in DESIGNS
        for batch, scores in zip(truth[kind].batches, truth[kind].scores, strict=True)
    ]
    records = [
        LookupRecord("own", index, batch, site.sketch(batch), score, FIRST_SEED, 0.0, kind)
        for index, (kind, batch, score) in enumerate(drawn)
    ]
    table = LookupTable.of(records, site.seen.ids)
    figures: dict[str, float] = {}
    for model in MODELS:
        found = fitted(site, table, model, site.seen).reliability(np.random.default_rng(0))
        name = f"{site.name}_own_{model}_spearman"
        figures |= {name: found.spearman, f"{name}_low": found.low, f"{name}_high": found.high}
    return figures


def ceiling(agreement: float, seeds: int) -> float:
    """What an estimate without fault would correlate with the mean of `seeds` measurements, whose
    correlation one by one is `agreement` (Spearman and Brown; of ranks nearly so).
    """
    single = max(agreement, 0.0)
    return float((seeds * single / (1 + (seeds - 1) * single)) ** 0.5)


def fitted(site: Site, table: LookupTable, model: Model, seen: PoolObservation) -> ValueModel:
    build = VALUE_MODELS[model]
    spec = replace(site.table, value_model=model)
    made = build(seen.out_of_fold, np.arange(site.labelled), site.world.data.classes, spec)
    made.fit(counted(table, site.table.rotations))
    return made


def tabled(figures: Mapping[str, float], asked: Asked) -> str:
    """Spearman of estimates and all held-out batches, in brackets what the model tells of itself;
    a row for each table, a column for each of its sizes.
    """
    sizes = asked.scale.records
    head = "| world | source | design | value model |" + "".join(f" {one} |" for one in sizes)
    rows = [head, "| --- | --- | --- | --- |" + " ---: |" * len(sizes)]
    for world_name in asked.worlds:
        for source, kind, model in asked.lines(world_name):
            names = [f"{world_name}_{source}_{kind}_{size}_{model}" for size in sizes]
            cells = [
                f"{figures[f'{one}_all_spearman']:.2f} ({figures[f'{one}_told']:.2f})"
                for one in names
            ]
            rows.append("| " + " | ".join([world_name, source, kind, model, *cells]) + " |")
    return "\n".join(rows) + "\n"


def draw(figures: Mapping[str, float], asked: Asked) -> None:
    """A panel for each world and kind of held-out batch: Spearman over the size of the table."""
    worlds, sizes = asked.worlds, asked.scale.records
    figure = Figure(figsize=(12, 1 + 3 * len(worlds)), layout="constrained")
    axes = figure.subplots(len(worlds), 3, sharey=True, squeeze=False)
    for row, name in enumerate(worlds):
        for column, kind in enumerate(("uniform", "tilted", "all")):
            panel = axes[row][column]
            for source, design_of, model in asked.lines(name):
                tables = [f"{name}_{source}_{design_of}_{size}_{model}" for size in sizes]
                panel.plot(
                    sizes,
                    [figures[f"{one}_{kind}_spearman"] for one in tables],
                    marker="o" if design_of == "tilted" else "x",
                    linestyle=STYLES[source],
                    color=f"C{MODELS.index(model)}",
                    label=f"{source}, {design_of}, {model}",
                )
            panel.axhline(figures[f"{name}_{kind}_ceiling"], color="grey", lw=0.8)
            panel.axhline(figures[f"{name}_{kind}_images_ceiling"], color="grey", lw=0.8, ls=":")
            panel.axhline(0.0, color="black", lw=0.5)
            panel.set_title(f"{name}: {kind} batches")
            panel.set_xlabel("records of the table")
        axes[row][0].set_ylabel("Spearman, estimate and truth")
    names = axes[0][0].get_legend_handles_labels()
    figure.legend(*names, loc="outside right upper", fontsize=7)
    asked.folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(asked.folder / f"reward_fidelity-{asked.labelled}.png", dpi=120)


if __name__ == "__main__":
    words = "value models against batches' labels: 40 and 120 labelled, batches of 40"
    main("reward_fidelity", words, measure, own=own_flags())

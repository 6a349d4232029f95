"""Filling the table of a cycle: which batches, beside which labelled images, and their proxies.

Records of the pool's batches without labels are the paper's; hindsight records are of images whose
labels are known (domain/hindsight.py). With both, hindsight records and the twins that measure the
surrogate come first, and what they show decides what the rest of the table is. Re-entrant: designs
follow from the cycle's seed and the records that exist, and a record is kept the moment it exists.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np

from mgral_service.domain import design, hindsight, transport
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.boxes import Detections, PoolObservation
from mgral_service.domain.errors import TooFewRecords, Unreadable
from mgral_service.domain.hindsight import Division
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import ProxyTrainer, Query, QueryStrategy, Site, Weights
from mgral_service.domain.records import (
    AGAIN,
    DesignedBatch,
    LookupRecord,
    Progress,
    ProxySpec,
    Status,
)
from mgral_service.domain.seeds import Purpose, seed_of, stream
from mgral_service.domain.specs import CycleSpec

TRIED = len(design.CHEAP) + 2  # records of a tryout, two or more of them uniform batches


class Ledger(Protocol):
    """Where records go; every call raises once the cycle's driver lost it."""

    def progress(self, progress: Progress) -> None: ...
    def records(self) -> tuple[LookupRecord, ...]: ...
    def keep_record(self, record: LookupRecord) -> None: ...


class Crew(Protocol):
    """Who works at the table."""

    @property
    def proxies(self) -> ProxyTrainer: ...
    def strategy(self, name: str) -> QueryStrategy: ...
    def weights(self, base: Sequence[str]) -> Weights:
        """Of a detector fitted on these labelled images."""
        ...

    def detections(self, base: Sequence[str], ids: Sequence[str]) -> Detections:
        """Of a detector fitted on these labelled images, in others."""
        ...


def divided(spec: CycleSpec, split: PoolSplit) -> tuple[Division, ...]:
    """For hindsight records; none if the table has none."""
    return hindsight.divisions(spec, split, _dividing(spec, split, 0))


def _dividing(spec: CycleSpec, split: PoolSplit, what: int) -> np.random.Generator:
    """A stream that differs from cycle to cycle of an experiment, whose seed is one: what is tried
    in the same images again would count as something new.
    """
    answered = max(split.labelled.values(), default=0)
    return stream(spec.seed, Purpose.DIVISION, what, answered)


def out_of_fold(
    spec: CycleSpec, split: PoolSplit, seen: PoolObservation, crew: Crew
) -> PoolObservation:
    """What was seen, and the detections in reservoirs of labelled images by detectors of their
    bases: to that of all labelled images they hold nothing new, as the pool does. Not their
    embeddings, as those of different detectors cannot be compared.
    """
    if spec.table.draws_from_scoring(len(split.scoring)):
        return seen
    parts = [crew.detections(one.base, one.reservoir) for one in divided(spec, split)]
    return replace(seen, unlearnt=Detections.concat(parts)) if parts else seen


class Filling:
    """The table of one cycle while it grows; also the OnlineTable of its strategy.

    trying: whether up to half of the hindsight records of a tilted table try strategies.

    failed       causes, in order
    interrupted  proxies that lost a preempted node
    trained      proxies trained by this process
    """

    def __init__(
        self, cycle: str, query: Query, crew: Crew, ledger: Ledger, trying: bool = True
    ) -> None:
        self.failed: list[str] = []
        self.interrupted = self.trained = 0
        self._cycle, self._query, self._crew, self._ledger = cycle, query, crew, ledger
        spec = query.spec
        self._spec, self._seed = spec.table, spec.seed
        labelled = tuple(query.split.labelled)
        rotations = divided(spec, query.split)
        self._shares = hindsight.shares(spec.table, bool(rotations))
        room = self._shares.hindsight // 2 if trying and spec.table.design == "tilted" else 0
        rng = _dividing(spec, query.split, 1)
        tryouts = hindsight.tryouts(spec, query.split, room // TRIED, rng)
        self._rotations, self._divisions = rotations, (*rotations, *tryouts)
        self.bases = (labelled, *(one.base for one in self._divisions))
        self._require_own(ledger.records())
        self._unlearnt = query.observation.out_of_fold
        self._points = transport.standardise(query.observation.embeddings)
        self._position = {name: at for at, name in enumerate(query.observation.ids)}
        self._starts: dict[int, Weights] = {}
        self._submitted: threading.Thread | None = None
        self._broken: BaseException | None = None
        self._next = spec.table.designed  # index of the next proposed batch

    def _require_own(self, records: Sequence[LookupRecord]) -> None:
        """Unreadable for a record that is of no reservoir of ours."""
        reservoirs = {at: set(one.reservoir) for at, one in enumerate(self._divisions, start=1)}
        for one in records:
            if one.rotation and not reservoirs.get(one.rotation, set()).issuperset(one.batch):
                cause = f"record {one.index} is of other images than this version would take"
                raise Unreadable("table of cycle", self._cycle, cause)

    # --- before the strategy ----------------------------------------------------------------------

    def fill(self) -> LookupTable:
        """Train the proxies whose records are missing. TooFewRecords if too many fail for good."""
        count = self._shares
        both_ways = count.hindsight + count.twins
        tried = self._tried()
        first = self._hindsight(count.hindsight - len(tried), 0)
        picked = np.linspace(0, len(first) - 1, count.twins).round().astype(int)
        twins = [replace(first[at], source="semi_supervised") for at in picked]
        self._train(0, [*first, *tried, *twins])
        rest = self._rest(both_ways)
        self._train(both_ways, rest)
        found = len(self._table())
        if found < self._spec.least:
            first_cause = self.failed[0] if self.failed else "none"
            raise TooFewRecords(found, self._spec.least, first_cause)
        self._train(self._spec.records, self._again([*first, *rest]))
        return self._table()

    def _again(self, teaching: Sequence[DesignedBatch]) -> list[DesignedBatch]:
        """Those that are measured once more, spread over all that teach; with hindsight over those,
        which count in full.
        """
        if self._rotations:
            teaching = [one for one in teaching if one.source == "hindsight"]
        count = min(self._spec.repeated, len(teaching))
        picked = np.linspace(0, len(teaching) - 1, count).round().astype(int)
        return [replace(teaching[at], design=AGAIN) for at in picked]

    def _rest(self, before: int) -> list[DesignedBatch]:
        """Of the pool, or more hindsight if the surrogate is not worth it."""
        if not self._shares.rest:
            return []
        if self._rotations and not self._surrogate_speaks(before):
            return self._hindsight(self._shares.rest, 1)
        rng = stream(self._seed, Purpose.DESIGN)
        return self._drawn(self._query, self._shares.rest, rng, self._classical(self._query))

    def _surrogate_speaks(self, before: int) -> bool:
        """Whether a batch of the pool without labels would count, by the records so far."""
        known = [one for one in self._ledger.records() if one.index < before]
        if not known:
            return True
        table = LookupTable.of(known, self._query.observation.ids, self.bases)
        found = hindsight.fidelity(table, self.fidelity_stream())
        return found is not None and found.informed

    def fidelity_stream(self) -> np.random.Generator:
        return stream(self._seed, Purpose.FIDELITY)

    def _hindsight(self, count: int, part: int) -> list[DesignedBatch]:
        """`count` batches of reservoirs, the rotations taking turns; those of classical strategies
        in part 0.
        """
        drawn = []
        for at, division in enumerate(self._rotations):
            share = len(range(at, count, len(self._rotations)))
            query = self._beside(division)
            rng = stream(self._seed, Purpose.DESIGN, part + 1, at)
            picks = self._classical(query) if part == 0 else {}
            drawn.append(_of(at + 1, self._drawn(query, share, rng, picks)))
        turns = max((len(some) for some in drawn), default=0)
        return [some[turn] for turn in range(turns) for some in drawn if turn < len(some)]

    def _tried(self) -> list[DesignedBatch]:
        """In every tryout one batch of each cheap strategy, equal ones once, and uniform ones."""
        found = []
        for at, division in enumerate(self._divisions[len(self._rotations) :]):
            query = self._beside(division)
            batches = design.tryout(
                TRIED,
                division.size,
                query.observation,
                self._places(division.reservoir),
                self._classical(query),
                stream(self._seed, Purpose.DESIGN, 3, at),
            )
            found += _of(len(self._rotations) + at + 1, batches)
        return found

    def _beside(self, division: Division) -> Query:
        """What a strategy is asked that chooses from the reservoir."""
        labelled = dict.fromkeys(division.base, 0)
        return replace(
            self._query,
            split=PoolSplit(labelled, division.reservoir, division.scoring),
            spec=replace(self._query.spec, budget=division.size),
            observation=self._unlearnt,
        )

    def _drawn(
        self,
        query: Query,
        count: int,
        rng: np.random.Generator,
        classical: Mapping[str, IntArray],
    ) -> list[DesignedBatch]:
        """The same for the same spec, split and observation."""
        if not count:
            return []
        return list(
            design.draw(
                self._spec.design,
                count,
                query.spec.budget,
                query.observation,
                self._places(tuple(query.split.labelled)),
                self._places(query.split.unlabelled),
                classical,
                rng,
            )
        )

    def _classical(self, query: Query) -> dict[str, IntArray]:
        """Batches of cheap strategies, where the design has any."""
        found = {}
        for name in design.CHEAP if self._spec.design == "tilted" else ():
            rng = stream(self._seed, Purpose.CLASSICAL)
            chosen = self._crew.strategy(name).select(query, rng, lambda progress: None)
            found[name] = self._places(chosen.ids)
        return found

    def _places(self, names: Sequence[str]) -> IntArray:
        return np.array([self._position[name] for name in names], dtype=np.int64)

    def words(self, records: int, wanted: int | None = None) -> tuple[str, ...]:
        """What went wrong, in sentences. wanted: records; all that were designed unless given."""
        found = []
        if self.failed:
            wanted = wanted or self._next
            found.append(
                f"The table has {records} of {wanted} records: {_proxies(len(self.failed))} "
                f"failed (first cause: {self.failed[0]}); the minimum is {self._spec.least}."
            )
        if self.interrupted:
            found.append(f"{_proxies(self.interrupted)} lost a preempted node and started over.")
        return tuple(found)

    # --- while it works ---------------------------------------------------------------------------

    @property
    def sites(self) -> tuple[Site, ...]:
        """The reservoirs, and the pool if records of it count."""
        query = self._query
        rng = self.fidelity_stream()
        counted, _ = hindsight.weigh(self._table(), self._spec.rotations, rng)
        found = [
            Site(one.reservoir, one.size, "hindsight", at)
            for at, one in enumerate(self._rotations, start=1)
        ]
        if ((counted.rotations == 0) & (counted.weights > 0)).any():
            size = min(query.spec.budget, len(query.split.unlabelled))
            found.append(Site(tuple(query.split.unlabelled), size, "semi_supervised", 0))
        return tuple(found)

    @property
    def left(self) -> int:
        """Batches that may still be proposed."""
        return self._spec.designed + self._spec.online - self._next

    def submit(self, batches: Sequence[DesignedBatch]) -> None:
        """See ports.OnlineTable."""
        assert self._submitted is None, "join what was submitted before"
        first, batches = self._next, batches[: self.left]
        self._next += len(batches)

        def work() -> None:
            try:
                self._train(first, batches)
            except BaseException as error:
                self._broken = error

        self._submitted = threading.Thread(target=work, daemon=True)
        self._submitted.start()

    def join(self) -> LookupTable:
        """See ports.OnlineTable."""
        if self._submitted is not None:
            self._submitted.join()
            self._submitted = None
        if self._broken is not None:
            raise self._broken
        return self._table()

    def _table(self) -> LookupTable:
        """Of all records but those of batches not yet proposed: a driver before this one kept
        them, and they will be met again.
        """
        known = [one for one in self._ledger.records() if one.index < self._next]
        return LookupTable.of(known, self._query.observation.ids, self.bases)

    # --- proxies ----------------------------------------------------------------------------------

    def _train(self, first: int, batches: Sequence[DesignedBatch]) -> None:
        """Those of `batches` (with indices from `first`) that have no record yet."""
        have = {one.index for one in self._ledger.records()}
        designed = dict(enumerate(batches, start=first))
        todo = [self._proxy(index, one) for index, one in designed.items() if index not in have]
        if not todo:
            return
        seeds = {one.index: one.seed for one in todo}
        total = max(self._spec.designed, first + len(batches))
        done = len(have)
        self._ledger.progress(Progress(Status.TRAINING_PROXIES, done, total))
        for result in self._crew.proxies.train(todo, self._starts_for(todo)):
            self.trained += 1
            self.interrupted += result.interruptions > 0
            if result.score is None or not math.isfinite(result.score):
                self.failed.append(f"proxy {result.index}: {result.cause or 'non-finite score'}")
                figures: Mapping[str, float] = {}
            else:
                one = designed[result.index]
                self._ledger.keep_record(
                    LookupRecord(
                        self._cycle,
                        result.index,
                        one.batch,
                        self._sketch(one.batch),
                        result.score,
                        seeds[result.index],
                        result.seconds,
                        one.design,
                        one.source,
                        one.rotation,
                    )
                )
                done += 1
                figures = {"score": result.score}
            self._ledger.progress(Progress(Status.TRAINING_PROXIES, done, total, figures))

    def _proxy(self, index: int, one: DesignedBatch) -> ProxySpec:
        base = self.bases[one.rotation]
        seed = seed_of(self._seed, Purpose.PROXY)
        if not self._spec.common_draws:
            seed = (seed + index * self._spec.repeats) % 2**31
        elif one.design == AGAIN:
            seed = (seed + self._spec.repeats) % 2**31
        scoring = self._divisions[one.rotation - 1].scoring if one.rotation else ()
        if one.source == "hindsight":
            return ProxySpec(index, (*base, *one.batch), (), seed, one.rotation, scoring)
        return ProxySpec(index, base, one.batch, seed, one.rotation, scoring)

    def _starts_for(self, todo: Sequence[ProxySpec]) -> Mapping[int, Weights]:
        """A detector that has seen the base and nothing of the reservoir, for each rotation."""
        if self._spec.start == "initial":
            return {}
        known = {frozenset(self.bases[one]): self._starts[one] for one in self._starts}
        for rotation in sorted({one.rotation for one in todo} - self._starts.keys()):
            base = frozenset(self.bases[rotation])
            if base not in known:
                known[base] = self._crew.weights(self.bases[rotation])
            self._starts[rotation] = known[base]
        return self._starts

    def _sketch(self, batch: Sequence[str]) -> tuple[float, ...]:
        found: FloatArray = transport.batch_sketch(self._points, self._places(batch))
        return tuple(found.tolist())


def _of(rotation: int, batches: Sequence[DesignedBatch]) -> list[DesignedBatch]:
    """With their labels, from the reservoir of that rotation."""
    return [replace(one, source="hindsight", rotation=rotation) for one in batches]


def _proxies(count: int) -> str:
    return f"{count} proxy" if count == 1 else f"{count} proxies"

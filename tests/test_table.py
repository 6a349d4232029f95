"""The table while it is filled: which records, beside which base, and what a restart repeats."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from mgral_service.domain import hindsight
from mgral_service.domain.boxes import Detections
from mgral_service.domain.design import CHEAP
from mgral_service.domain.errors import TooFewRecords, Unreadable
from mgral_service.domain.pool import PoolSplit
from mgral_service.domain.ports import NOTHING, ProxyTrainer, Query, QueryStrategy, Weights
from mgral_service.domain.records import (
    DesignedBatch,
    LookupRecord,
    Progress,
    ProxyResult,
    ProxySpec,
)
from mgral_service.domain.specs import AgentSpec, CycleSpec, TableSpec
from mgral_service.strategies import STRATEGIES
from mgral_service.strategies.trials import DEFAULT
from mgral_service.table import Filling, out_of_fold
from tests.doubles import CLASSES, FakeProxies, ids, observation

NAMES = ids(70)
LABELLED, POOL = NAMES[:30], NAMES[30:]
SCORING = ids(130)[70:]
SPLIT = PoolSplit(dict.fromkeys(LABELLED, 0), POOL, ())
SEEN = observation(NAMES)
SPEC = CycleSpec("toy", 6, table=TableSpec(records=20, online=4, twice=0.0))


class Ledger:
    """Records in memory."""

    def __init__(self) -> None:
        self.kept: dict[int, LookupRecord] = {}
        self.told: list[Progress] = []

    def progress(self, progress: Progress) -> None:
        self.told.append(progress)

    def records(self) -> tuple[LookupRecord, ...]:
        return tuple(self.kept[index] for index in sorted(self.kept))

    def keep_record(self, record: LookupRecord) -> None:
        assert record.index not in self.kept
        self.kept[record.index] = record


class Crew:
    """Doubles; `fitted` are the bases that weights were asked for, `observers` those of
    detections, with the images.
    """

    def __init__(self, proxies: ProxyTrainer) -> None:
        self.proxies = proxies
        self.fitted: list[tuple[str, ...]] = []
        self.observers: list[tuple[tuple[str, ...], tuple[str, ...]]] = []

    def strategy(self, name: str) -> QueryStrategy:
        return STRATEGIES[name]()

    def weights(self, base: Sequence[str]) -> Weights:
        self.fitted.append(tuple(base))
        return {"weight": np.array([float(len(base))])}

    def detections(self, base: Sequence[str], ids: Sequence[str]) -> Detections:
        self.observers.append((tuple(base), tuple(ids)))
        return observation(ids, seed=1).detections


class BlindProxies(FakeProxies):
    """Without a batch's labels its score is another number, made from its first id."""

    def train(
        self, specs: Sequence[ProxySpec], starts: Mapping[int, Weights] = NOTHING
    ) -> Iterator[ProxyResult]:
        for result, spec in zip(super().train(specs, starts), specs, strict=True):
            noise = np.random.default_rng([*spec.batch[0].encode()]).random() if spec.batch else 0
            yield replace(result, score=noise) if spec.batch else result


def filling(
    ledger: Ledger,
    spec: CycleSpec = SPEC,
    crew: Crew | None = None,
    labelled: int = 30,
    scoring: tuple[str, ...] = (),
    trying: bool = True,
) -> Filling:
    split = PoolSplit(dict.fromkeys(NAMES[:labelled], 0), POOL, scoring)
    query = Query(spec, split, observation((*NAMES, *scoring)), CLASSES)
    return Filling("cyc", query, crew or Crew(FakeProxies()), ledger, trying)


def kinds(ledger: Ledger) -> dict[tuple[str, bool], int]:
    """Records by source and whether they are of the pool."""
    count: dict[tuple[str, bool], int] = {}
    for one in ledger.records():
        key = (one.source, one.rotation == 0)
        count[key] = count.get(key, 0) + 1
    return count


def with_source(source: Literal["semi_supervised", "hindsight"]) -> CycleSpec:
    return replace(SPEC, table=replace(SPEC.table, source=source))


def test_a_surrogate_that_ranks_as_labels_do_gets_records_of_the_pool() -> None:
    ledger = Ledger()
    spec = replace(SPEC, table=replace(SPEC.table, records=60))
    filling(ledger, spec).fill()
    found = kinds(ledger)
    assert found == {
        ("hindsight", False): 30,
        ("semi_supervised", False): 12,
        ("semi_supervised", True): 18,
    }


def test_a_surrogate_that_means_nothing_leaves_the_table_to_hindsight() -> None:
    ledger = Ledger()
    filling(ledger, crew=Crew(BlindProxies())).fill()
    assert kinds(ledger) == {("hindsight", False): 16, ("semi_supervised", False): 4}
    with_labels = [one for one in ledger.records() if one.source == "hindsight"]
    assert len({(one.rotation, frozenset(one.batch)) for one in with_labels}) == 16


def test_every_labelled_image_is_seen_by_a_detector_that_was_not_fitted_to_it() -> None:
    crew = Crew(FakeProxies())
    seen = out_of_fold(SPEC, SPLIT, SEEN, crew)
    assert [base for base, _ in crew.observers] == list(filling(Ledger()).bases[1:])
    assert sorted(name for _, names in crew.observers for name in names) == sorted(LABELLED)
    assert not any(set(base) & set(names) for base, names in crew.observers)
    assert seen.ids == NAMES
    assert seen.embeddings is SEEN.embeddings
    assert seen.detections is SEEN.detections
    for names, whole in ((POOL, SEEN), (crew.observers[0][1], observation(NAMES, seed=1))):
        found, expected = seen.out_of_fold.detections.subset(names), whole.detections.subset(names)
        assert found.scores.tolist() == expected.scores.tolist()
        assert found.boxes.tolist() == expected.boxes.tolist()


def test_without_hindsight_nothing_is_seen_twice() -> None:
    crew = Crew(FakeProxies())
    seen = out_of_fold(with_source("semi_supervised"), SPLIT, SEEN, crew)
    assert not crew.observers
    assert seen is SEEN


def test_scoring_images_are_seen_by_the_detector_as_they_are() -> None:
    crew = Crew(FakeProxies())
    assert out_of_fold(SPEC, replace(SPLIT, scoring=SCORING), SEEN, crew) is SEEN
    assert not crew.observers


def test_scoring_images_stand_in_for_the_pool_and_the_others_score() -> None:
    """A part of them, beside all labelled images, from the task detector's weights; so do twins,
    which are of the rotations and not of tryouts.
    """
    crew, ledger = Crew(FakeProxies()), Ledger()
    spec = replace(SPEC, table=replace(SPEC.table, start="detector", records=60))
    filling(ledger, spec, crew, scoring=SCORING).fill()
    assert set(crew.fitted) == {LABELLED}
    assert isinstance(crew.proxies, FakeProxies)
    rotations = {}
    for one in ledger.records():
        proxy = crew.proxies.specs[one.index]
        told = one.batch if one.source == "hindsight" else ()
        assert set(proxy.labelled) == {*LABELLED, *told}
        assert set(proxy.batch) == {*one.batch} - {*told}
        if one.rotation:
            assert set(one.batch) <= {*SCORING} - {*proxy.scoring}
            assert len(proxy.scoring) == len(SCORING) // 2
            rotations[one.rotation] = proxy.scoring
        else:
            assert set(one.batch) <= {*POOL}
            assert not proxy.scoring  # all of them
    assert {*rotations} == {1, 2, 3}
    twins = [one for one in ledger.records() if one.source == "semi_supervised" and one.rotation]
    assert {one.rotation for one in twins} == {1, 2}
    assert sorted((*rotations[1], *rotations[2])) == sorted(SCORING)


def test_half_of_the_table_tries_strategies_in_halves_drawn_anew() -> None:
    spec = with_source("hindsight")
    ledger = Ledger()
    made = filling(ledger, replace(spec, table=replace(spec.table, records=96)), scoring=SCORING)
    made.fill()
    records = ledger.records()
    assert [one.rotation for one in made.sites] == [1, 2]
    assert {one.rotation for one in records} == {*range(1, 9)}
    for rotation in range(3, 9):
        tried = [one.design for one in records if one.rotation == rotation]
        assert len(tried) == 8
        assert {DEFAULT, "uniform"} < {*tried} <= {*CHEAP, "uniform"}
        assert max(tried.count(name) for name in CHEAP) == 1  # equal batches are tried once
    assert {one.design for one in records if one.rotation > 2} == {*CHEAP, "uniform"}
    first, second = (
        {name for one in records if one.rotation == rotation for name in one.batch}
        for rotation in (3, 4)
    )
    assert not first & second


def test_without_tryouts_all_records_are_of_the_rotations() -> None:
    ledger = Ledger()
    filling(ledger, with_source("hindsight"), scoring=SCORING, trying=False).fill()
    assert {one.rotation for one in ledger.records()} == {1, 2}
    assert len(ledger.records()) == SPEC.table.records


def test_every_cycle_of_one_seed_divides_what_is_known_anew() -> None:
    def reservoirs(answered: int) -> set[frozenset[str]]:
        spec, ledger = with_source("hindsight"), Ledger()
        spec = replace(spec, table=replace(spec.table, records=96))
        split = PoolSplit(dict.fromkeys(LABELLED, 0) | {POOL[0]: answered}, POOL[1:], SCORING)
        query = Query(spec, split, observation((*NAMES, *SCORING)), CLASSES)
        made = Filling("cyc", query, Crew(FakeProxies()), ledger)
        return {frozenset(one.reservoir) for one in made._divisions}

    assert reservoirs(1) == reservoirs(1)
    assert not reservoirs(0) & reservoirs(1)
    assert len(reservoirs(0) | reservoirs(1) | reservoirs(2)) == 3 * 8


def test_records_of_other_divisions_are_not_taken_for_ours() -> None:
    """As a version that divides otherwise would leave them in the middle of a cycle."""
    ledger = Ledger()
    filling(ledger, with_source("hindsight")).fill()
    filling(ledger, with_source("hindsight"))
    ledger.kept[3] = replace(ledger.kept[3], rotation=3 - ledger.kept[3].rotation)
    with pytest.raises(Unreadable, match="record 3 is of other images"):
        filling(ledger, with_source("hindsight"))


def test_classical_strategies_are_tried_in_every_rotation() -> None:
    ledger = Ledger()
    filling(ledger, with_source("hindsight")).fill()
    for rotation in (1, 2):
        designs = {one.design for one in ledger.records() if one.rotation == rotation}
        assert designs >= {DEFAULT, "entropy", "entropy_sum", "uniform", "tilted"}


def test_a_restart_with_all_records_fits_no_detector() -> None:
    ledger, first, crew = Ledger(), Crew(FakeProxies()), Crew(FakeProxies())
    spec = replace(SPEC, table=replace(SPEC.table, start="detector"))
    filling(ledger, spec, first).fill()
    assert first.fitted
    before = dict(ledger.kept)
    filling(ledger, spec, crew).fill()
    assert not crew.fitted
    assert ledger.kept == before


@pytest.mark.parametrize("scoring", [(), SCORING])
def test_what_a_ridge_chooses_is_tried_in_every_rotation(scoring: tuple[str, ...]) -> None:
    """Without records of that rotation: its batch is worth more than chance, as in this world the
    worth lies in the embedding."""
    ledger, spec = Ledger(), with_source("hindsight")
    spec = replace(spec, agent=AgentSpec(iterations=8, draws=4, lane=16))
    made = filling(ledger, spec, scoring=scoring)
    split, seen = replace(SPLIT, scoring=scoring), observation((*NAMES, *scoring))
    query = Query(spec, split, seen, CLASSES, made.fill(), made)
    choice = STRATEGIES["mgral"]().select(query, np.random.default_rng(0), lambda progress: None)
    assert {*choice.ids} < {*POOL}
    tried = [one for one in ledger.records() if one.design == "ridge"]
    assert [one.rotation for one in tried] == [1, 2]
    reservoirs = {site.rotation: {*site.images} for site in made.sites}
    for one in tried:
        assert set(one.batch) < reservoirs[one.rotation]
        assert not reservoirs[one.rotation] & {*made.bases[one.rotation]}
    assert choice.evidence is not None
    trial = next(one for one in choice.evidence.trials if one.name == "ridge")
    assert trial.records == 2
    assert trial.gain > 0
    assert sum(one.design == "agent" for one in ledger.records()) == 2  # of four beyond the table


def test_a_hindsight_proxy_trains_on_its_base_and_batch_with_labels_and_nothing_else() -> None:
    ledger = Ledger()
    made = filling(ledger, with_source("hindsight"))
    made.fill()
    assert kinds(ledger) == {("hindsight", False): 20}
    assert {one.rotation for one in ledger.records()} == {1, 2}
    for one in ledger.records():
        base = made.bases[one.rotation]
        assert not set(one.batch) & set(base)
        assert {*one.batch, *base} <= set(LABELLED)


def test_the_paper_s_records_are_of_the_pool_beside_all_labelled_images() -> None:
    ledger = Ledger()
    filling(ledger, with_source("semi_supervised")).fill()
    assert kinds(ledger) == {("semi_supervised", True): 20}
    assert all(set(one.batch) <= set(POOL) for one in ledger.records())


def test_too_few_labelled_images_leave_the_surrogate_alone() -> None:
    ledger = Ledger()
    filling(ledger, labelled=11).fill()
    assert kinds(ledger) == {("semi_supervised", True): 20}


def test_proxies_start_from_detectors_that_have_not_seen_the_reservoir() -> None:
    crew = Crew(FakeProxies())
    spec = with_source("hindsight")
    spec = replace(spec, table=replace(spec.table, start="detector"))
    made = filling(Ledger(), spec, crew)
    made.fill()
    assert crew.fitted == [made.bases[1], made.bases[2]]
    assert isinstance(crew.proxies, FakeProxies)
    assert sorted(crew.proxies.starts) == [1, 2]


def test_a_restart_trains_what_is_missing_and_gives_the_same_table() -> None:
    broken, calm = Ledger(), Ledger()
    with pytest.raises(KeyboardInterrupt):
        filling(broken, crew=Crew(FakeProxies(dies_after=7))).fill()
    crew = Crew(FakeProxies())
    table = filling(broken, crew=crew).fill()
    assert len(crew.proxies.trained) == 13  # type: ignore[attr-defined]
    expected = filling(calm).fill()
    assert table.scores.tolist() == expected.scores.tolist()
    assert broken.records() == calm.records()


def test_too_few_records_are_refused_with_the_first_cause() -> None:
    bad = frozenset(range(2, 20))
    made = filling(Ledger(), crew=Crew(FakeProxies(bad=bad)))
    with pytest.raises(TooFewRecords, match="proxy 2: made to fail"):
        made.fill()
    assert made.words(2) == (
        "The table has 2 of 20 records: 18 proxies failed (first cause: proxy 2: made to fail); "
        "the minimum is 10.",
    )


def test_a_table_that_went_well_needs_no_words() -> None:
    ledger = Ledger()
    made = filling(ledger)
    made.fill()
    assert made.words(20) == ()


def proposed(made: Filling, count: int) -> list[DesignedBatch]:
    return [
        DesignedBatch(site.images[at : at + site.size], "agent", site.source, site.rotation)
        for at, site in zip(range(count), made.sites * count, strict=False)
    ]


def test_proposed_batches_join_the_table_and_are_capped() -> None:
    ledger = Ledger()
    made = filling(ledger, with_source("hindsight"))
    made.fill()
    assert made.left == 4
    made.submit(proposed(made, 3))
    table = made.join()
    assert len(table) == 23
    assert table.designs[-3:] == ("agent",) * 3
    made.submit(proposed(made, 3))
    assert len(made.join()) == 24
    assert made.left == 0


def test_a_restart_meets_proposed_batches_again_only_when_they_are_proposed() -> None:
    ledger = Ledger()
    first = filling(ledger, with_source("hindsight"))
    first.fill()
    batches = proposed(first, 2)
    first.submit(batches)
    first.join()
    crew = Crew(FakeProxies())
    again = filling(ledger, with_source("hindsight"), crew)
    assert len(again.fill()) == 20
    again.submit(batches)
    assert len(again.join()) == 22
    assert crew.proxies.trained == []  # type: ignore[attr-defined]


def test_what_breaks_a_proposed_proxy_reaches_the_strategy() -> None:
    ledger = Ledger()
    made = filling(ledger, crew=Crew(FakeProxies(dies_after=20)))
    made.fill()
    made.submit(proposed(made, 1))
    with pytest.raises(KeyboardInterrupt):
        made.join()


def test_batches_come_from_reservoirs_and_from_the_pool_where_its_records_count() -> None:
    made = filling(Ledger(), with_source("semi_supervised"))
    made.fill()
    assert [site.images for site in made.sites] == [POOL]
    made = filling(Ledger(), with_source("hindsight"))
    made.fill()
    assert [site.rotation for site in made.sites] == [1, 2]
    assert all(set(site.images) <= set(LABELLED) for site in made.sites)
    made = filling(Ledger(), replace(SPEC, table=replace(SPEC.table, records=60)))
    made.fill()
    assert [site.rotation for site in made.sites] == [1, 2, 0]


@pytest.mark.parametrize("common", [True, False])
def test_a_share_is_measured_again_from_another_seed_and_teaches_nothing(common: bool) -> None:
    ledger = Ledger()
    table = replace(SPEC.table, records=40, twice=0.2, repeats=3, common_draws=common)
    spec = replace(with_source("hindsight"), table=replace(table, source="hindsight"))
    one = filling(ledger, spec)
    one.fill()
    again = [record for record in ledger.records() if record.design == "again"]
    assert [record.index for record in again] == list(range(40, 48))
    assert one.left == 4
    first = {
        (record.rotation, record.batch): record
        for record in ledger.records()
        if record.design != "again"
    }
    for record in again:
        before = first.pop((record.rotation, record.batch))
        assert record.rotation in (1, 2)  # those that teach
        assert not {*range(record.seed, record.seed + 3)} & {*range(before.seed, before.seed + 3)}
    assert {record.rotation for record in again} == {1, 2}
    known = one.join()
    counted, _ = hindsight.weigh(known, spec.table.rotations, np.random.default_rng(0))
    assert counted.weights[-8:].tolist() == [0.0] * 8
    filling(ledger, spec).fill()  # trains nothing, or the ledger would complain


def test_what_is_proposed_follows_what_was_measured_again() -> None:
    ledger = Ledger()
    spec = replace(SPEC, table=replace(SPEC.table, source="semi_supervised", twice=0.2))
    one = filling(ledger, spec)
    one.fill()
    one.submit([DesignedBatch(POOL[:6], "agent")])
    one.join()
    assert [record.design for record in ledger.records()][-5:] == [*("again",) * 4, "agent"]


def test_nothing_is_measured_again_where_the_cycle_fails() -> None:
    spec = replace(SPEC, table=replace(SPEC.table, min_records=20, twice=0.2))
    proxies = FakeProxies(bad=frozenset({3}))
    with pytest.raises(TooFewRecords):
        filling(Ledger(), spec, Crew(proxies)).fill()
    assert max(proxies.trained) == 19

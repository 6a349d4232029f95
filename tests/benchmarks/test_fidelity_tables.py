import pytest

from benchmarks.fidelity_tables import beside, counted, thinned
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.records import LookupRecord

IDS = tuple("abcdefgh")


def test_a_thinned_table_keeps_records_from_end_to_end() -> None:
    records = [
        LookupRecord("c", at, (IDS[at],), (float(at),), 0.1 * at, 0, 1.0, "tilted")
        for at in range(8)
    ]
    few = thinned(LookupTable.of(records, IDS), 3)
    assert few.indices.tolist() == [0, 4, 7]
    assert [batch.tolist() for batch in few.batches] == [[0], [4], [7]]
    assert few.scores == pytest.approx([0.0, 0.4, 0.7])


def test_rotations_and_sources_keep_their_shares_when_a_table_is_thinned() -> None:
    """Every other record would be of one rotation alone."""
    hindsight = [
        LookupRecord("c", at, (IDS[at],), (), 0.1, 0, 1.0, "tilted", "hindsight", 1 + at % 2)
        for at in range(8)
    ]
    pool = [LookupRecord("c", at, (IDS[at],), (), 0.1, 0, 1.0, "tilted") for at in range(8)]
    both = beside(LookupTable.of(hindsight, IDS, [IDS[:1]] * 3), LookupTable.of(pool, IDS))
    assert thinned(both, 8).rotations.tolist() == [1, 2, 1, 2, 0, 0, 0, 0]


def test_half_of_a_table_of_both_sources_is_of_each_and_counts_in_full() -> None:
    """A tryout, which is of rotation 3, teaches nothing here either."""
    hindsight = [
        LookupRecord("c", at, (IDS[at],), (0.0,), 0.1 * at, 0, 1.0, "tilted", "hindsight", at)
        for at in (1, 2, 3)
    ]
    pool = [
        LookupRecord("c", at, (IDS[at + 3],), (0.0,), 0.1, 0, 1.0, "tilted") for at in (1, 2, 3)
    ]
    bases = [IDS[:1]] * 4
    both = beside(LookupTable.of(hindsight, IDS, bases), LookupTable.of(pool, IDS))
    assert counted(both, 2).weights.tolist() == [1, 1, 0, 1, 1, 1]
    assert thinned(both, 4).sources == ("hindsight",) * 2 + ("semi_supervised",) * 2
    assert len(both.bases) == 4

import numpy as np
import pytest

from benchmarks.reward_fidelity import ceiling, thinned
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.records import LookupRecord

IDS = tuple("abcdefgh")


def test_the_ceiling_is_what_a_faultless_estimate_reaches() -> None:
    """Truth of spread 1 measured twice with noise of spread 1: the two agree by a half."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(200_000)
    measured = truth[:, None] + rng.standard_normal((200_000, 2))
    found = np.corrcoef(truth, measured.mean(axis=1))[0, 1]
    assert ceiling(0.5, 2) == pytest.approx(found, abs=0.01)
    assert ceiling(-0.3, 2) == 0


def test_a_thinned_table_keeps_records_from_end_to_end() -> None:
    records = [
        LookupRecord("c", at, (IDS[at],), (float(at),), 0.1 * at, 0, 1.0, "tilted")
        for at in range(8)
    ]
    few = thinned(LookupTable.of(records, IDS), 3)
    assert few.indices.tolist() == [0, 4, 7]
    assert [batch.tolist() for batch in few.batches] == [[0], [4], [7]]
    assert few.scores == pytest.approx([0.0, 0.4, 0.7])

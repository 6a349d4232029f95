"""What the benchmark of table reads compares, and that its numbers agree."""

import numpy as np
import pytest

pytest.importorskip("ot", reason="needs POT, the reference")

from benchmarks import lookup_speed
from benchmarks.lib.harness import Options

TINY = lookup_speed.Size(pool=400, dimension=8, records=8, budget=40, loop=4, reads=2)


def test_exact_reads_are_those_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup_speed, "QUICK", TINY)
    figures = lookup_speed.measure(Options(quick=True, device="cpu"))
    assert 0 <= figures["exact_error"] <= 1e-6
    assert figures["exact_speedup"] == pytest.approx(figures["loop_s"] / figures["exact_s"])
    assert figures["sliced_speedup"] == pytest.approx(figures["loop_s"] / figures["sliced_s"])
    ranks = {name: value for name, value in figures.items() if name.startswith("spearman")}
    assert len(ranks) == 6
    assert all(-1 <= value <= 1 for value in ranks.values())
    assert ranks["spearman_sliced_exact_tilted"] > 0


@pytest.mark.parametrize("design", lookup_speed.DESIGNS)
def test_batches_are_of_candidates_and_none_is_a_record(design: str) -> None:
    pool = lookup_speed.made_up_pool(TINY)
    records, batches = lookup_speed.drawn(lookup_speed.DESIGNS[design], TINY, pool)
    assert (len(records), len(batches)) == (TINY.records, lookup_speed.DRAWS)
    assert all(len(np.unique(batch)) == TINY.budget for batch in records + batches)
    assert min(batch.min() for batch in records + batches) >= TINY.budget
    measured = {tuple(np.sort(record)) for record in records}
    assert measured.isdisjoint(tuple(np.sort(batch)) for batch in batches)

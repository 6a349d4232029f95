from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.fidelity_site import QUICK, KeptLedger
from benchmarks.reward_fidelity import (
    MEASURED,
    Asked,
    ceiling,
    held_out,
    measured,
    tabled,
)
from mgral_service.domain.boxes import Detections, PoolObservation
from mgral_service.domain.records import DesignedBatch, LookupRecord, ProxyResult, ProxySpec

IDS = tuple("abcdefgh")


def test_the_ceiling_is_what_a_faultless_estimate_reaches() -> None:
    """Truth of spread 1 measured twice with noise of spread 1: the two agree by a half."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal(200_000)
    measured = truth[:, None] + rng.standard_normal((200_000, 2))
    found = np.corrcoef(truth, measured.mean(axis=1))[0, 1]
    assert ceiling(0.5, 2) == pytest.approx(found, abs=0.01)
    assert ceiling(-0.3, 2) == 0


def test_kept_scores_go_with_the_batches_they_are_of(tmp_path: Path) -> None:
    """Whatever would be drawn today, from what a detector sees today."""
    ids = tuple(f"img_{at:03d}" for at in range(200))
    places = {name: at for at, name in enumerate(ids)}
    ledger = KeptLedger(tmp_path / "truth.jsonl", lambda batch: ())
    for at in range(2 * QUICK.held_out * MEASURED):
        batch = (ids[120 + at // MEASURED],)
        ledger.keep_record(LookupRecord("truth", at, batch, (), 0.01 * at, 0, 1.0, "uniform"))
    none: Any = np.zeros((0, 4))
    seen = PoolObservation(
        ids,
        np.random.default_rng(0).normal(size=(200, 4)),
        Detections(
            ids, none[:, 0].astype(int), none, none[:, 0].astype(int), none[:, 0], none[:, :3]
        ),
    )
    site: Any = SimpleNamespace(
        scale=QUICK,
        seen=seen,
        labelled=120,
        pool=ids[120:],
        world=SimpleNamespace(labelled=ids[:120], scoring=ids[:8]),
        ledger=lambda what: ledger,
        places=lambda batch: np.array([places[name] for name in batch]),
        proxies=SimpleNamespace(train=lambda specs, starts: iter(specs)),
        weights=lambda base: {},
    )
    truth = held_out(site)
    assert [one.tolist() for one in truth["tilted"].batches] == [[123], [124], [125]]
    assert truth["tilted"].scores.tolist() == [
        pytest.approx([0.06, 0.07]),
        pytest.approx([0.08, 0.09]),
        pytest.approx([0.1, 0.11]),
    ]


def test_each_half_of_the_scoring_images_scores_one_training(tmp_path: Path) -> None:
    asked: list[ProxySpec] = []

    def train(specs: Sequence[ProxySpec], starts: Any) -> Iterator[ProxyResult]:
        asked.extend(specs)
        yield from (ProxyResult(one.index, 0.1 * len(one.scoring), 1.0) for one in specs)

    site: Any = SimpleNamespace(
        scale=QUICK,
        world=SimpleNamespace(labelled=IDS[:2]),
        ledger=lambda what: KeptLedger(tmp_path / f"{what}.jsonl", lambda batch: ()),
        proxies=SimpleNamespace(train=train),
        weights=lambda base: {},
    )
    drawn = [DesignedBatch(("c",), "uniform"), DesignedBatch(("d",), "tilted")]
    for _ in range(2):  # the second time all are kept
        found = measured(site, "halves", drawn, [("e", "f"), ("g",)])
        assert found.tolist() == [[0.2, 0.1], [0.2, 0.1]]
        assert [one.scoring for one in asked] == [("e", "f"), ("g",)] * 2
    assert [one.labelled for one in asked] == [("a", "b", "c")] * 2 + [("a", "b", "d")] * 2
    assert asked[0].seed != asked[1].seed == asked[3].seed


def test_the_table_has_a_line_for_each_way_to_fill_one(tmp_path: Path) -> None:
    asked = Asked(("digits-40",), ("scoring",), QUICK, tmp_path)
    figures: dict[str, float] = {}
    for at, (source, kind, model) in enumerate(asked.lines("digits-40")):
        for size in QUICK.records:
            name = f"digits-40_{source}_{kind}_{size}_{model}"
            figures |= {f"{name}_all_spearman": 0.1 * at, f"{name}_told": -0.5}
    head, _, *rows = tabled(figures, asked).splitlines()
    assert head == "| world | source | design | value model | 4 | 8 |"
    assert len(rows) == 6
    assert rows[1] == "| digits-40 | scoring | uniform | ridge | 0.10 (-0.50) | 0.10 (-0.50) |"

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mgral_service import codec
from mgral_service.app import wiring
from mgral_service.app.settings import Settings
from mgral_service.domain.errors import CycleNotReady, InvalidInput, Unreadable
from mgral_service.domain.records import ProxySpec, SelectedImage, Selection, Status
from mgral_service.domain.specs import (
    CycleAdvanced,
    CycleSpec,
    DatasetSpec,
    DetectorSpec,
    TableSpec,
)
from mgral_service.metrics import METRICS
from tests.detectors.tiny import CLASSES, SIDE, squares
from tests.fakes import cycle_record
from tests.memory_stores import memory_stores

STORED = Selection("cyc_1", "digits", "mgral", "agent", (SelectedImage("img_a", 1, 0.5, "new"),))
RANKED = replace(STORED, images=())


def test_a_dataset_must_lie_below_the_data_root(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, data_root=tmp_path / "data")
    with pytest.raises(InvalidInput, match="root"):
        wiring.ingest(settings, DatasetSpec("x", str(tmp_path / "elsewhere")))
    outside = DatasetSpec("x", str(tmp_path / "data"), labelled="/etc/passwd")
    with pytest.raises(InvalidInput, match="labelled"):
        wiring.ingest(settings, outside)
    with pytest.raises(InvalidInput, match="format: 'magic' is none of coco"):
        wiring.ingest(settings, replace(outside, format="magic"))


def test_a_weights_file_must_lie_below_the_data_root_as_well(tmp_path: Path) -> None:
    weights = tmp_path / "elsewhere.pth"
    weights.touch()
    record = cycle_record()
    detector = replace(record.spec.detector, weights=str(weights))
    settings = Settings(home=tmp_path, data_root=tmp_path / "data")
    with pytest.raises(InvalidInput, match=r"detector\.weights"):
        wiring.require_weights_below(settings, detector)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path))
        with pytest.raises(InvalidInput, match=r"detector\.weights"):
            wiring.require_weights_below(settings, replace(detector, weights="~/elsewhere.pth"))
    wiring.require_weights_below(settings, replace(detector, weights="VGG16_Weights.IMAGENET1K_V1"))


@pytest.mark.parametrize(("reward", "score"), [(None, 0.5), ("ap30", 0.3)])
def test_proxies_are_scored_by_the_reward(
    reward: Any, score: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "ap50", lambda: lambda detections, truth: 0.5)
    monkeypatch.setitem(METRICS, "ap30", lambda: lambda detections, truth: 0.3)
    images, truth = squares(8)
    spec = CycleSpec(
        "a",
        2,
        detector=DetectorSpec(size=SIDE, batch=2),
        table=TableSpec(steps=1),
        advanced=CycleAdvanced(reward=reward),
    )
    trainer = wiring.local_proxies(spec, CLASSES, images, truth, "cpu")
    proxy = ProxySpec(
        index=0,
        role="uniform",
        chosen_by="uniform",
        fold=0,
        batch=truth.ids[4:6],
        labelled=truth.ids[:6],
        unlabelled=(),
        scoring=truth.ids[6:],
        seed=0,
    )
    (result,) = trainer.train([proxy])
    assert result.score == score


@pytest.mark.parametrize(
    ("where", "given"),
    [
        ("strategy", {"strategy": "magic"}),
        ("metric", {"metric": "magic"}),
        ("advanced.reward", {"advanced": {"reward": "magic"}}),
        ("detector.name", {"detector": {"name": "magic"}}),
        ("table.objective", {"table": {"objective": "magic"}}),
        ("table.advanced.value_model", {"table": {"advanced": {"value_model": "magic"}}}),
    ],
)
def test_an_unknown_name_is_refused_before_anything_trains(
    where: str, given: dict[str, Any]
) -> None:
    spec = codec.cycle_spec({"dataset": "d", "budget": 3, **given})
    with pytest.raises(InvalidInput) as caught:
        wiring.check(spec)
    assert caught.value.where == where


def test_the_stored_selection_answers_for_its_own_budget_and_the_ranker_for_others() -> None:
    stores = memory_stores()
    selector = wiring.StoredSelector(stores, lambda cycle, budget: RANKED)
    record = stores.cycles.create(cycle_record(), None, "")
    with pytest.raises(CycleNotReady):
        selector.top("cyc_1", None)
    stores.cycles.put_attachment("cyc_1", "selection", codec.encode(STORED), None)
    stores.cycles.put(replace(record, status=Status.SELECTED), None)
    assert selector.top("cyc_1", None) == selector.top("cyc_1", 1) == STORED
    assert selector.top("cyc_1", 2) == RANKED
    stores.cycles.put_attachment("cyc_1", "selection", '{"of": "another version"}', None)
    with pytest.raises(Unreadable, match="selection of cycle 'cyc_1'"):
        selector.top("cyc_1", None)

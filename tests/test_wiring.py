from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mgral_service import codec, wiring
from mgral_service.domain.errors import CycleNotReady, InvalidInput, Unreadable
from mgral_service.domain.records import ProxySpec, SelectedImage, Selection, Status
from mgral_service.domain.specs import CycleSpec, DatasetSpec, DetectorSpec, TableSpec
from mgral_service.metrics import METRICS
from mgral_service.settings import Settings
from mgral_service.store.memory import memory_stores
from tests.detectors.tiny import CLASSES, SIDE, squares
from tests.fakes import cycle_record

STORED = Selection("cyc_1", "digits", "mgral", "agent", (SelectedImage("img_a", 1, 0.5, "new"),))
RANKED = replace(STORED, images=())


def test_a_dataset_must_lie_below_the_data_root(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, data_root=tmp_path / "data")
    with pytest.raises(InvalidInput, match="root"):
        wiring.ingest(settings, DatasetSpec("x", str(tmp_path / "elsewhere")))
    outside = DatasetSpec("x", str(tmp_path / "data"), labelled="/etc/passwd")
    with pytest.raises(InvalidInput, match="labelled"):
        wiring.ingest(settings, outside)


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
    monkeypatch.setitem(METRICS, "ap50", lambda: lambda seen, truth: 0.5)
    monkeypatch.setitem(METRICS, "ap30", lambda: lambda seen, truth: 0.3)
    images, truth = squares(8)
    spec = CycleSpec(
        "a",
        2,
        reward=reward,
        detector=DetectorSpec(size=SIDE, batch=2),
        table=TableSpec(steps=1),
    )
    trainer = wiring.local_proxies(spec, CLASSES, images, truth, truth.ids[6:], "cpu")
    (result,) = trainer.train([ProxySpec(0, truth.ids[:4], truth.ids[4:6], 0)])
    assert result.score == score


@pytest.mark.parametrize(("where", "name"), [("strategy", "oracle"), ("when_uninformed", "magic")])
def test_an_unknown_strategy_is_named_with_the_known_ones(where: str, name: str) -> None:
    spec = codec.build(CycleSpec, {"dataset": "d", "budget": 3, where: name})
    with pytest.raises(InvalidInput, match=rf"{where}: '{name}' is none of .*coreset"):
        wiring.check(spec)


def test_the_stored_selection_answers_for_its_own_budget_and_the_ranker_for_others() -> None:
    kept = memory_stores()
    selector = wiring.StoredSelector(kept, lambda cycle, budget: RANKED)
    record = kept.cycles.create(cycle_record(), None, "")
    with pytest.raises(CycleNotReady):
        selector.top("cyc_1", None)
    kept.cycles.put_document("cyc_1", "selection", codec.encode(STORED), None)
    kept.cycles.put(replace(record, status=Status.SELECTED), None)
    assert selector.top("cyc_1", None) == selector.top("cyc_1", 1) == STORED
    assert selector.top("cyc_1", 2) == RANKED
    kept.cycles.put_document("cyc_1", "selection", '{"of": "another version"}', None)
    with pytest.raises(Unreadable, match="selection of cycle 'cyc_1'"):
        selector.top("cyc_1", None)

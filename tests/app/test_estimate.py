from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mgral_service import codec
from mgral_service.app import estimate, settings
from mgral_service.app.estimate import DatasetCounts, StepSeconds
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.records import LookupRecord
from mgral_service.domain.specs import (
    AgentSpec,
    CycleSpec,
    DatasetSpec,
    DetectorSpec,
    ExperimentSpec,
    TableAdvanced,
    TableSpec,
)
from tests.datasets.folders import coco_folder

PRESETS = Path(__file__).parents[2] / "presets"
UNKNOWN = DatasetCounts(None, None, None, ())
SECONDS = StepSeconds(2.0, 4.0, ())  # an hour is 1,800 steps of a detector, 900 of a proxy
SPEC = ExperimentSpec(
    DatasetSpec("pets", "/nowhere"),
    CycleSpec(
        "pets",
        budget=50,
        detector=DetectorSpec(size=64, steps=3600, batch=4),
        table=TableSpec(records=9, folds=2, steps=1800, actors=2),
        agent=AgentSpec(iterations=300),
    ),
    initial=100,
    cycles=2,
)


def changed(**table: Any) -> ExperimentSpec:
    return replace(SPEC, cycle=replace(SPEC.cycle, table=replace(SPEC.cycle.table, **table)))


def test_hours_are_steps_times_seconds_times_trainings() -> None:
    """A detector and a proxy take 2 h each, and each fold has a detector; nine proxies, two at a
    time, take five turns.
    """
    costs = estimate.estimate(SPEC, SECONDS, UNKNOWN, with_table=True)
    assert (costs.detector_hours, costs.proxy_hours) == (2.0, 2.0)
    assert (costs.cycles, costs.detectors, costs.proxies) == (2, 4, 9)
    assert (costs.device_hours, costs.wall_hours) == (26.0, 18.0)


def test_the_default_method_trains_a_detector_and_an_agent_in_each_fold() -> None:
    paper = replace(SPEC, cycle=replace(SPEC.cycle, method="paper", choice="agent"))
    for spec, trained in ((SPEC, (4, 3)), (changed(folds=1), (3, 1)), (paper, (2, 1))):
        costs = estimate.estimate(spec, SECONDS, UNKNOWN, with_table=True)
        assert (costs.detectors, costs.agents) == trained


def test_labels_grow_by_the_budget() -> None:
    costs = estimate.estimate(SPEC, SECONDS, UNKNOWN, with_table=True)
    assert costs.labelled == (100, 150, 200)


def test_the_paper_sets_scoring_images_apart_unless_the_dataset_names_them() -> None:
    named = replace(SPEC.dataset, scoring="scoring.json")
    cycle = replace(SPEC.cycle, method="paper", choice="agent")
    for spec, scoring in (
        (SPEC, 0),
        (replace(SPEC, cycle=cycle), 25),
        (replace(SPEC, cycle=cycle, dataset=named), 0),
    ):
        costs = estimate.estimate(spec, SECONDS, UNKNOWN, with_table=True)
        assert costs.scoring == scoring


def test_repeats_train_each_proxy_again() -> None:
    costs = estimate.estimate(
        changed(advanced=TableAdvanced(repeats=3)), SECONDS, UNKNOWN, with_table=True
    )
    assert (costs.proxy_steps, costs.proxy_hours) == (5400, 6.0)


def test_without_a_table_the_detector_alone_trains() -> None:
    costs = estimate.estimate(SPEC, SECONDS, UNKNOWN, with_table=False)
    assert (costs.detectors, costs.device_hours) == (2, 4.0)
    assert (costs.proxies, costs.agents, costs.table_bytes) == (0, 0, 0)


def test_the_last_cycle_takes_what_is_left_of_the_pool() -> None:
    costs = estimate.estimate(SPEC, SECONDS, DatasetCounts(170, 180, 3, ()), with_table=True)
    assert costs.labelled == (100, 150, 170)
    with pytest.raises(InvalidInput, match="used up before cycle 2"):
        estimate.estimate(SPEC, SECONDS, DatasetCounts(150, 160, 3, ()), with_table=True)


def test_images_take_three_bytes_a_pixel() -> None:
    costs = estimate.estimate(SPEC, SECONDS, DatasetCounts(900, 1000, 3, ()), with_table=True)
    assert costs.image_bytes == 1000 * 3 * 64 * 64
    assert estimate.estimate(SPEC, SECONDS, UNKNOWN, with_table=True).image_bytes is None


def test_the_table_takes_what_its_records_take_as_text() -> None:
    record = LookupRecord(
        cycle="cyc_" + "0" * 20,
        index=100,
        role="candidate",
        chosen_by="entropy_root",
        fold=1,
        batch=tuple(f"img_{number:020x}" for number in range(50)),
        score=1 / 3,
        seed=2**31 - 1,
        duration_s=1000 / 3,
    )
    costs = estimate.estimate(SPEC, SECONDS, UNKNOWN, with_table=True)
    assert costs.table_bytes == pytest.approx(18 * len(codec.encode(record)), rel=0.01)


@pytest.mark.parametrize(
    ("name", "cycles", "proxies", "labelled", "images"),
    [
        ("voc07_12", 9, 200, (1_000, 10_000), 16_551 + 4_952),
        ("coco2017", 4, 30, (2_345, 11_725), 118_287 + 5_000),
    ],
)
def test_the_presets_cost_what_the_papers_protocol_costs(
    name: str, cycles: int, proxies: int, labelled: tuple[int, int], images: int
) -> None:
    spec = settings.experiment(PRESETS / f"{name}.toml")
    counts = estimate.count_dataset(replace(spec.dataset, root="/nowhere"))
    costs = estimate.estimate(spec, SECONDS, counts, with_table=True)
    assert (costs.cycles, costs.detectors, costs.proxies) == (cycles, 2, proxies)
    assert (costs.labelled[0], costs.labelled[-1]) == labelled
    assert costs.image_bytes == images * 3 * spec.cycle.detector.size**2


def test_images_are_counted_where_the_files_are(tmp_path: Path) -> None:
    counts = estimate.count_dataset(coco_folder(tmp_path, train=4, test=2).write())
    assert (counts.pool, counts.images, counts.classes) == (4, 6, 2)
    assert counts.notes == (f"4 images in the pool, 2 others, counted in {tmp_path}",)


def test_a_missing_folder_is_named_and_the_rest_counted(tmp_path: Path) -> None:
    spec = replace(coco_folder(tmp_path).write(), images="pictures")
    counts = estimate.count_dataset(spec)
    assert counts.pool == 4
    assert "no folder 'pictures'" in counts.notes[1]


def test_without_files_and_published_counts_the_number_is_unknown() -> None:
    counts = estimate.count_dataset(SPEC.dataset)
    assert (counts.pool, counts.images, counts.classes) == (None, None, None)
    assert "'/nowhere' is not a folder" in counts.notes[1]


def test_weights_are_checked_only_if_they_are_a_file(tmp_path: Path) -> None:
    detector = DetectorSpec("ssd300", 300, freeze_backbone=False)
    assert estimate.check_weights(detector, 3) == "random"
    assert "ImageNet's" in estimate.check_weights(DetectorSpec(), 3)
    named = replace(detector, weights="VGG16_Weights.IMAGENET1K_FEATURES")
    assert "not checked" in estimate.check_weights(named, 3)
    (tmp_path / "w.safetensors").write_bytes(b"none")
    wrong = replace(detector, weights=str(tmp_path / "w.safetensors"))
    assert "cannot be read as weights" in estimate.check_weights(wrong, 3)


@pytest.mark.parametrize(
    ("unlabelled", "images"), [(0, "labelled"), (8, "labelled and unlabelled")]
)
def test_steps_are_measured_on_random_images(
    unlabelled: int, images: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "PATIENCE_S", 1.0)
    spec = replace(changed(unlabelled=unlabelled).cycle, detector=DetectorSpec(size=64, batch=2))
    seconds = estimate.measure(spec, 3, "cpu", with_table=True)
    assert 0 < seconds.detector < 60
    assert 0 < seconds.proxy < 60
    assert seconds.notes == (
        "a detector's step measured on cpu",
        f"a proxy's step on {images} images measured on cpu",
    )


def test_batches_too_slow_to_time_are_scaled_up() -> None:
    """A second an image: eight steps of two images are timed, of 32 they would take 32 s each."""
    step_s, note = estimate.step_seconds(lambda size, steps: float(size * steps), 32)
    assert (step_s, note) == (32.0, " with 2 images, scaled to 32")

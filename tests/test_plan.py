from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from mgral_service import plan, settings
from mgral_service.datasets import loading
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.specs import (
    AgentSpec,
    CycleSpec,
    DatasetSpec,
    DetectorSpec,
    ExperimentSpec,
    TableSpec,
)
from mgral_service.plan import StepSeconds, Stock
from tests.datasets.folders import coco_folder

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
UNKNOWN = Stock(None, None, None, ())
SECONDS = StepSeconds(2.0, 4.0, ())  # an hour is 1,800 steps of a detector, 900 of a proxy
SPEC = ExperimentSpec(
    DatasetSpec("pets", "/nowhere"),
    CycleSpec(
        "pets",
        budget=50,
        detector=DetectorSpec(size=64, steps=3600, batch=4),
        table=TableSpec(records=5, steps=1800, actors=2, online=0),
        agent=AgentSpec(iterations=300),
    ),
    initial=100,
    cycles=2,
)


def test_hours_are_steps_times_seconds_times_trainings() -> None:
    """A detector and a proxy take 2 h each, and each of two bases has a detector; five proxies, two
    at once, take three turns.
    """
    made = plan.plan(SPEC, SECONDS, UNKNOWN, with_table=True)
    assert (made.detector_hours, made.proxy_hours) == (2.0, 2.0)
    assert [one.device_hours for one in made.cycles] == [18.0, 18.0]
    assert [one.wall_hours for one in made.cycles] == [14.0, 14.0]
    assert (made.trainings, made.device_hours, made.wall_hours) == (18, 36.0, 28.0)
    assert made.iterations == 300


def test_proposed_batches_and_detectors_of_bases_cost_trainings() -> None:
    """Three more proxies and one more detector a cycle, 2 h each."""
    table = replace(SPEC.cycle.table, online=3, rotations=3)
    spec = replace(SPEC, cycle=replace(SPEC.cycle, table=table))
    made = plan.plan(spec, SECONDS, UNKNOWN, with_table=True)
    assert [one.device_hours for one in made.cycles] == [26.0, 26.0]
    assert (made.cycles[0].fits, made.cycles[0].proxies) == (5, 8)


def test_enough_scoring_images_need_no_detectors_of_bases() -> None:
    """48 carved of 192, or as many named by the dataset."""
    carved = replace(SPEC, initial=192)
    assert plan.plan(carved, SECONDS, UNKNOWN, with_table=True).cycles[0].fits == 2
    named = replace(SPEC, dataset=replace(SPEC.dataset, scoring="scoring.json"))
    for scoring, fits in ((48, 2), (47, 4), (None, 4)):
        stock = Stock(None, None, None, (), scoring)
        assert plan.plan(named, SECONDS, stock, with_table=True).cycles[0].fits == fits


def test_labels_grow_by_the_budget() -> None:
    made = plan.plan(SPEC, SECONDS, UNKNOWN, with_table=True)
    assert [(one.labelled, one.budget) for one in made.cycles] == [(100, 50), (150, 50)]
    assert (made.annotations, made.scoring) == (100, 25)


def test_a_dataset_that_names_its_scoring_images_gives_none_of_the_labelled() -> None:
    spec = replace(SPEC, dataset=replace(SPEC.dataset, scoring="scoring.json"))
    assert plan.plan(spec, SECONDS, UNKNOWN, with_table=True).scoring is None


def test_proxies_that_stop_early_cost_less() -> None:
    table = replace(SPEC.cycle.table, stop=0.5)
    spec = replace(SPEC, cycle=replace(SPEC.cycle, table=table))
    made = plan.plan(spec, SECONDS, UNKNOWN, with_table=True)
    assert (made.proxy_steps, made.proxy_hours) == (900, 1.0)


def test_without_a_table_the_detector_alone_trains() -> None:
    made = plan.plan(SPEC, SECONDS, UNKNOWN, with_table=False)
    assert (made.trainings, made.device_hours, made.table_bytes, made.iterations) == (4, 8.0, 0, 0)


def test_the_last_cycle_takes_what_is_left_of_the_pool() -> None:
    made = plan.plan(SPEC, SECONDS, Stock(170, 180, 3, ()), with_table=True)
    assert [one.budget for one in made.cycles] == [50, 20]
    with pytest.raises(InvalidInput, match="used up before cycle 2"):
        plan.plan(SPEC, SECONDS, Stock(150, 160, 3, ()), with_table=True)


def test_images_take_three_bytes_a_pixel() -> None:
    made = plan.plan(SPEC, SECONDS, Stock(900, 1000, 3, ()), with_table=True)
    assert made.image_bytes == 1000 * 3 * 64 * 64
    assert plan.plan(SPEC, SECONDS, UNKNOWN, with_table=True).image_bytes is None


@pytest.mark.parametrize(
    ("left", "where"), [(4 * 1536, "memory"), (4 * 1535, "a file under MGRAL_HOME/images")]
)
def test_images_are_kept_in_memory_up_to_a_quarter_of_what_is_left(
    monkeypatch: pytest.MonkeyPatch, left: int, where: str
) -> None:
    monkeypatch.setattr(loading, "memory_left", lambda: left)
    assert plan.images_kept(1536) == f"1.54 kB in {where}"
    assert plan.images_kept(None) == "unknown"


def test_a_record_is_its_ids_and_its_sketch() -> None:
    """An id is 24 characters in quotes with a comma; 256 numbers have 17 digits or so each."""
    assert plan.record_bytes(1000) - plan.record_bytes(999) == 27
    assert 256 * 17 < plan.record_bytes(1) < 256 * 24
    made = plan.plan(SPEC, SECONDS, UNKNOWN, with_table=True)
    assert made.table_bytes == 10 * plan.record_bytes(50)


@pytest.mark.parametrize(
    ("name", "trainings", "annotations", "after", "images"),
    [
        ("voc07_12", 9 * (2 + 220), 9_000, 10_000, 16_551 + 4_952),
        ("coco2017", 4 * (2 + 35), 9_380, 11_725, 118_287 + 5_000),
    ],
)
def test_the_presets_are_the_papers_protocol(
    name: str, trainings: int, annotations: int, after: int, images: int
) -> None:
    spec = settings.experiment(BENCHMARKS / f"{name}.toml")
    stock = plan.stock_of(replace(spec.dataset, root="/nowhere"))
    made = plan.plan(spec, SECONDS, stock, with_table=True)
    assert (made.trainings, made.annotations) == (trainings, annotations)
    assert made.cycles[-1].labelled + made.cycles[-1].budget == after
    assert made.image_bytes == images * 3 * spec.cycle.detector.size**2


def test_the_stock_is_counted_where_the_files_are(tmp_path: Path) -> None:
    stock = plan.stock_of(coco_folder(tmp_path, train=4, test=2).write())
    assert (stock.pool, stock.images, stock.classes) == (4, 6, 2)
    assert stock.words == (f"4 images in the pool, 2 others, counted in {tmp_path}",)


def test_a_missing_folder_is_named_and_the_rest_counted(tmp_path: Path) -> None:
    spec = replace(coco_folder(tmp_path).write(), images="pictures")
    stock = plan.stock_of(spec)
    assert stock.pool == 4
    assert "no folder 'pictures'" in stock.words[1]


def test_without_files_and_published_counts_the_stock_is_unknown() -> None:
    stock = plan.stock_of(SPEC.dataset)
    assert (stock.pool, stock.images, stock.classes) == (None, None, None)
    assert "'/nowhere' is not a folder" in stock.words[1]


def test_weights_are_checked_only_if_they_are_a_file(tmp_path: Path) -> None:
    detector = DetectorSpec("ssd300", 300, freeze_backbone=False)
    assert plan.weights_checked(detector, 3) == "random ones"
    assert "ImageNet's" in plan.weights_checked(DetectorSpec(), 3)
    named = replace(detector, weights="VGG16_Weights.IMAGENET1K_FEATURES")
    assert "not checked" in plan.weights_checked(named, 3)
    (tmp_path / "w.safetensors").write_bytes(b"none")
    wrong = replace(detector, weights=str(tmp_path / "w.safetensors"))
    assert "cannot be read as weights" in plan.weights_checked(wrong, 3)


def test_steps_are_measured_on_random_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "PATIENCE_S", 1.0)
    detector = DetectorSpec(size=64, batch=2)
    spec = replace(SPEC.cycle, detector=detector, table=replace(SPEC.cycle.table, cpus=1.0))
    seconds = plan.measure(spec, 3, "cpu", with_table=True)
    assert 0 < seconds.detector < 60
    assert 0 < seconds.proxy < 60
    detector_s, with_labels, without = seconds.words
    assert detector_s == "a detector's step measured on cpu"
    assert with_labels.startswith("a proxy's step with labels measured on cpu: ")
    assert without.startswith("a proxy's step with unlabelled images measured on cpu: ")


def test_proxies_with_and_without_labels_are_timed_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 40 records by both rewards 8 are twins, and at most 12 of the pool."""

    def seconds(self: object, kind: str) -> tuple[float, str]:
        return {"detector": 9.0, "hindsight": 1.0, "semi_supervised": 3.0}[kind], ""

    monkeypatch.setattr(plan._Bench, "seconds", seconds)
    found = {}
    sources: tuple[Literal["hindsight", "both", "semi_supervised"], ...]
    sources = ("hindsight", "both", "semi_supervised")
    for source in sources:
        table = TableSpec(records=40, source=source)
        spec = replace(SPEC.cycle, detector=DetectorSpec(size=64, batch=2), table=table)
        found[source] = plan.measure(spec, 3, "cpu", with_table=True).proxy
    assert found == {"hindsight": 1.0, "both": 2.0, "semi_supervised": 3.0}


def test_batches_too_slow_to_time_are_scaled_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second an image: eight steps of two images are timed, of 32 they would take 32 s each."""

    def timed(self: object, size: int, steps: int, kind: str) -> list[float]:
        return [float(size)] * steps

    monkeypatch.setattr(plan._Bench, "_timed", timed)
    spec = replace(SPEC.cycle, detector=DetectorSpec(size=64, batch=32))
    seconds = plan.measure(spec, 3, "cpu", with_table=False)
    assert (seconds.detector, seconds.proxy) == (32.0, 0.0)
    assert seconds.words == ("a detector's step measured on cpu with 2 images, scaled to 32",)

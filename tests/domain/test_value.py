from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from scipy.stats import spearmanr

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.features import COMPONENT, BatchFeatures
from mgral_service.domain.frame import Frame
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.ports import ValueModel
from mgral_service.domain.reliability import rank_reliability
from mgral_service.domain.ridge import Ridge
from mgral_service.domain.specs import TableSpec
from mgral_service.domain.transport import standardise
from mgral_service.domain.value import VALUE_MODELS
from tests.domain.pools import CLASSES, divide, mean_of, measure, observe

SEEN = observe(200)
SPLIT = divide(SEEN, 40)
LABELLED = np.arange(40)
POINTS = standardise(SEEN.embeddings)
WORTH = mean_of(0.3 + 0.05 * POINTS[:, 0])


def table_of(records: int = 30, seed: int = 0) -> LookupTable:
    return measure(SEEN, SPLIT, records, 20, WORTH, seed)


def scored(table: LookupTable, scores: FloatArray) -> LookupTable:
    return replace(table, scores=scores)


def without(table: LookupTable, at: int) -> LookupTable:
    keep = np.arange(len(table)) != at
    return replace(
        table,
        batches=tuple(batch for batch, kept in zip(table.batches, keep, strict=True) if kept),
        sketches=table.sketches[keep],
        scores=table.scores[keep],
        designs=tuple(one for one, kept in zip(table.designs, keep, strict=True) if kept),
        sources=tuple(one for one, kept in zip(table.sources, keep, strict=True) if kept),
        rotations=table.rotations[keep],
        weights=table.weights[keep],
    )


def ridge() -> Ridge:
    return Ridge(BatchFeatures(SEEN, LABELLED, CLASSES))


@pytest.fixture(params=["ridge", "gp", "idw", "idw-exact", "idw-table", "onehot"])
def model(request: pytest.FixtureRequest) -> ValueModel:
    spec = {
        "ridge": TableSpec(value_model="ridge"),
        "gp": TableSpec(value_model="gp"),
        "idw": TableSpec(value_model="idw"),
        "onehot": TableSpec(value_model="onehot"),
        "idw-exact": TableSpec(value_model="idw", distance="exact"),
        "idw-table": TableSpec(value_model="idw", cutoff="table"),
    }[request.param]
    return VALUE_MODELS[spec.value_model](SEEN, LABELLED, CLASSES, spec)


def test_every_model_answers_in_shape_and_the_same_twice(model: ValueModel) -> None:
    model.fit(table_of(12))
    batches: list[IntArray] = [np.arange(60, 80), np.arange(90, 110), np.arange(150, 170)]
    mean, sd = model.estimate(batches)
    assert mean.shape == sd.shape == (3,)
    assert (sd >= 0).all()
    assert model.estimate(batches)[0].tolist() == mean.tolist()
    assert model.left_out().shape == (12,)
    first = model.reliability(np.random.default_rng(0))
    assert first == model.reliability(np.random.default_rng(0))
    assert first.records == 12
    assert -1 <= first.low <= first.spearman <= first.high <= 1


def test_equal_scores_carry_no_information(model: ValueModel) -> None:
    model.fit(scored(table_of(12), np.full(12, 0.25)))
    answer = model.reliability(np.random.default_rng(0))
    assert (answer.spearman, answer.informed) == (0.0, False)
    assert answer.low < 0
    assert model.estimate([np.arange(50, 70)])[0] == pytest.approx([0.25])


def test_equal_batches_carry_no_information(model: ValueModel) -> None:
    table = table_of(12)
    same = replace(
        table,
        batches=(table.batches[0],) * 12,
        sketches=np.tile(table.sketches[0], (12, 1)),
    )
    model.fit(same)
    assert not model.reliability(np.random.default_rng(0)).informed
    assert np.isfinite(model.estimate([np.arange(50, 70)])).all()


def test_a_planted_additive_value_is_found_by_the_ridge() -> None:
    model = ridge()
    model.fit(table_of(60))
    assert model.reliability(np.random.default_rng(0)).low > 0.5
    fresh = table_of(40, seed=9)
    assert spearmanr(model.estimate(fresh.batches)[0], fresh.scores)[0] > 0.9
    order, values = model.fill(np.arange(6, len(POINTS)), 20)
    assert sorted(order) == list(range(6, len(POINTS)))
    assert np.corrcoef(values, POINTS[order, 0])[0, 1] > 0.9


def test_a_filled_batch_covers_the_classes_that_the_value_wants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels = np.random.default_rng(0).choice(3, len(SEEN.detections.labels), p=[0.8, 0.15, 0.05])
    seen = replace(SEEN, detections=replace(SEEN.detections, labels=labels))
    features = BatchFeatures(seen, LABELLED, CLASSES)
    at = features.names.index("class coverage")

    def covered(batch: IntArray) -> float:
        return float(features([batch])[0, at])

    model = Ridge(features)
    model.fit(measure(seen, SPLIT, 60, 20, covered, 0))
    pool = np.arange(40, 200)
    order, values = model.fill(pool, 20)
    assert sorted(order) == pool.tolist()
    assert len(values) == len(order)
    uniform = [covered(np.random.default_rng(seed).permutation(pool)[:20]) for seed in range(50)]
    monkeypatch.setattr("mgral_service.domain.feature_model._PARTS", 1)
    at_once = model.fill(pool, 20)[0]
    assert covered(order[:20]) > covered(at_once[:20]) > max(uniform)
    assert model.fill(pool[:3], 20)[0].tolist() == model.fill(pool[:3], 3)[0].tolist()


def test_a_batch_is_filled_as_one_of_its_own_size_whatever_that_of_the_records() -> None:
    """Classes are worth much while few of them are known: to a large batch less and less."""
    labels = np.random.default_rng(0).choice(3, len(SEEN.detections.labels), p=[0.8, 0.15, 0.05])
    seen = replace(SEEN, detections=replace(SEEN.detections, labels=labels))
    features = BatchFeatures(seen, LABELLED, CLASSES)
    at = features.names.index("class coverage")

    def worth(batch: IntArray) -> float:
        return float(features([batch])[0, at] + 0.05 * POINTS[batch, 0].mean())

    model = Ridge(features)
    model.fit(measure(seen, SPLIT, 60, 5, worth, 0))
    pool = np.arange(40, 200)
    chosen = model.fill(pool, 60)[0][:60]
    as_the_records = np.zeros(0, dtype=np.int64)
    slopes = model.slopes(pool[:0], 5) / model._frame.scale
    for _ in range(60):
        values = features.linear_values(slopes, 5, as_the_records)
        left = np.setdiff1d(pool, as_the_records)
        as_the_records = np.append(as_the_records, left[np.argmax(values[left])])
    assert worth(chosen) > worth(as_the_records)


def test_the_ridge_finds_which_kind_of_features_matters() -> None:
    features = BatchFeatures(SEEN, LABELLED, CLASSES)
    at = features.names.index("class coverage")
    by_class = ridge()
    by_class.fit(measure(SEEN, SPLIT, 60, 20, lambda batch: features([batch])[0, at], 0))
    by_look = ridge()
    by_look.fit(table_of(60))
    components = features.kinds == COMPONENT
    assert by_class.prior[at] == 1 > by_class.prior[components].max()
    assert by_look.prior[components].min() == 1 > by_look.prior[at]


def test_left_out_of_the_ridge_equals_solving_again_without_the_record() -> None:
    table, at = table_of(14), 3
    features = BatchFeatures(SEEN, LABELLED, CLASSES)
    model = Ridge(features)
    model.fit(table)
    scaled = Frame(features, table).rows * model.prior
    keep = np.arange(14) != at
    centre = scaled[keep].mean(axis=0)
    rows, scores = scaled[keep] - centre, table.scores[keep]
    normal = rows.T @ rows + model.penalty * np.eye(rows.shape[1])
    theta = np.linalg.solve(normal, rows.T @ (scores - scores.mean()))
    expected = scores.mean() + float((scaled[at] - centre) @ theta)
    assert model.left_out()[at] == pytest.approx(expected)


def test_the_ridge_is_less_sure_far_from_its_records() -> None:
    model = ridge()
    rng = np.random.default_rng(0)
    table = table_of(60)
    model.fit(scored(table, table.scores + rng.normal(scale=0.01, size=60)))
    far = np.argsort(POINTS[:, 1])[-20:]
    sd = model.estimate([table.batches[-1], far])[1]
    assert sd[1] > sd[0]


def test_a_small_table_is_as_unsure_as_it_errs() -> None:
    """With 15 noisy records and more features than that."""
    apart: list[float] = []
    for seed in range(8):
        table = table_of(15, seed)
        noise = 0.02 * np.random.default_rng(seed).standard_normal(15)
        model = ridge()
        model.fit(scored(table, table.scores + noise))
        fresh = table_of(30, seed + 50)
        means, sds = model.estimate(fresh.batches)
        apart += (np.abs(means - fresh.scores) / sds).tolist()
    assert 0.2 < float(np.median(apart)) < 1.5


def test_a_ridge_needs_two_records() -> None:
    table = table_of(4)
    for at in (0, 0, 0):
        table = without(table, at)
    with pytest.raises(InvalidInput, match="two or more"):
        ridge().fit(table)


def test_what_the_agent_proposed_says_nothing_of_reliability() -> None:
    """It sought what estimates praise. Its records teach all the same."""
    table, model = table_of(), ridge()
    model.fit(replace(table, designs=("agent",) * 5 + table.designs[5:]))
    assert model.reliability(np.random.default_rng(0)).records == 25
    other = ridge()
    other.fit(table)
    assert model.estimate(table.batches)[0].tolist() == other.estimate(table.batches)[0].tolist()


def test_fewer_than_three_records_rank_nothing() -> None:
    answer = rank_reliability(lambda s: s, np.array([0.1, 0.2]), np.random.default_rng(0))
    assert (answer.spearman, answer.low, answer.high) == (0.0, -1.0, 1.0)


@pytest.mark.parametrize("name", ["ridge", "gp", "idw", "onehot"])
def test_pure_noise_is_rarely_called_informative(
    name: Literal["ridge", "gp", "idw", "onehot"],
) -> None:
    spec = TableSpec(value_model=name)
    model = VALUE_MODELS[name](SEEN, LABELLED, CLASSES, spec)
    table = table_of(24)
    fooled = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        model.fit(scored(table, 0.3 + 0.02 * rng.standard_normal(24)))
        fooled += model.reliability(rng).informed
    assert fooled <= 4

"""Records beside different labelled images, in one frame."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from mgral_service.domain import transport
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.features import CLASS_COVERAGE, COMPONENT, BatchFeatures
from mgral_service.domain.frame import Frame
from mgral_service.domain.gp import GaussianProcess
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.ridge import Ridge
from tests.domain.pools import CLASSES, observe

SEEN = observe(300)
LABELLED = np.arange(120)
POINTS = transport.standardise(SEEN.embeddings)
BASES = (LABELLED, np.arange(0, 60), np.arange(60, 120))
LEVELS = {1: 0.2, 2: 0.6}  # what proxies of a rotation score whatever their batch


def worth(batch: IntArray) -> float:
    return 0.05 * float(POINTS[batch, 0].mean())


def hindsight(count: int = 40, noise: float = 0.0, axes: int = 1) -> LookupTable:
    """Batches of 10 labelled images beside one of two bases, tilted along the first axes."""
    rng = np.random.default_rng(1)
    batches, rotations = [], []
    for at in range(count):
        rotation = 1 + at % 2
        reservoir = np.setdiff1d(LABELLED, BASES[rotation])
        tilt = POINTS[reservoir, :axes] @ rng.normal(size=axes)
        keys = tilt + rng.gumbel(size=len(reservoir))
        batches.append(reservoir[np.argsort(-keys)[:10]])
        rotations.append(rotation)
    scores = [LEVELS[r] + worth(b) for b, r in zip(batches, rotations, strict=True)]
    return LookupTable(
        tuple(batches),
        np.stack([transport.batch_sketch(POINTS, batch) for batch in batches]),
        np.array(scores) + noise * rng.standard_normal(count),
        ("tilted",) * count,
        np.arange(count),
        np.ones(count),
        tuple("hindsight" for _ in range(count)),
        np.array(rotations),
        np.ones(count),
        BASES,
    )


def features() -> BatchFeatures:
    return BatchFeatures(SEEN, LABELLED, CLASSES)


def pool_batches() -> tuple[list[IntArray], FloatArray]:
    rng = np.random.default_rng(2)
    batches = []
    for _ in range(40):
        keys = rng.normal() * POINTS[120:, 0] + rng.gumbel(size=180)
        batches.append(120 + np.argsort(-keys)[:10])
    return batches, np.array([worth(batch) for batch in batches])


@pytest.mark.parametrize("make", [Ridge, GaussianProcess])
def test_what_labelled_batches_taught_ranks_batches_of_the_pool(
    make: type[Ridge | GaussianProcess],
) -> None:
    model = make(features())
    model.fit(hindsight())
    batches, truth = pool_batches()
    means, sds = model.estimate(batches)
    assert spearmanr(means, truth)[0] > 0.8
    assert (sds > 0).all()
    assert model.reliability(np.random.default_rng(0)).low > 0.3


@pytest.mark.parametrize("make", [Ridge, GaussianProcess])
def test_the_level_of_a_rotation_says_nothing_about_its_batches(
    make: type[Ridge | GaussianProcess],
) -> None:
    table = hindsight(noise=0.002)
    lifted = replace(table, scores=table.scores + np.where(table.rotations == 2, 5.0, 0.0))
    first, second = make(features()), make(features())
    first.fit(table)
    second.fit(lifted)
    batches, _ = pool_batches()
    gains = first.estimate(batches)[0] - table.level
    assert second.estimate(batches)[0] - lifted.level == pytest.approx(gains, abs=1e-9)
    assert second.left_out() - first.left_out() == pytest.approx(
        np.where(table.rotations == 2, 5.0, 0.0), abs=1e-6
    )


@pytest.mark.parametrize("make", [Ridge, GaussianProcess])
def test_a_record_of_no_weight_changes_nothing_but_gets_an_estimate(
    make: type[Ridge | GaussianProcess],
) -> None:
    table = hindsight(noise=0.002)
    broken = replace(
        table,
        scores=np.where(np.arange(40) < 2, 9.0, table.scores),
        weights=np.where(np.arange(40) < 2, 0.0, 1.0),
    )
    other = replace(broken, scores=np.where(np.arange(40) < 2, -9.0, table.scores))
    first, second = make(features()), make(features())
    first.fit(broken)
    second.fit(other)
    batches, _ = pool_batches()
    assert first.estimate(batches)[0] == pytest.approx(second.estimate(batches)[0])
    assert first.left_out()[:2] == pytest.approx(table.scores[:2], abs=0.1)
    assert first.reliability(np.random.default_rng(0)).records == 38


def test_rows_of_a_group_are_centred_and_in_units_of_their_spread() -> None:
    table = hindsight()
    frame = Frame(features(), table)
    for rotation in (1, 2):
        assert frame.rows[table.rotations == rotation].mean(axis=0) == pytest.approx(
            np.zeros(frame.rows.shape[1]), abs=1e-9
        )
    kinds = features().kinds
    alone = np.isfinite(frame.scale) & (kinds != COMPONENT) & (kinds != CLASS_COVERAGE)
    squares = (frame.rows**2).mean(axis=0)
    assert squares[alone] == pytest.approx(np.ones(alone.sum()))
    assert squares[kinds == COMPONENT].mean() == pytest.approx(1)
    assert len(set(frame.scale[kinds == COMPONENT])) == 1
    assert squares[kinds == CLASS_COVERAGE] == pytest.approx([len(CLASSES)])


@pytest.mark.parametrize("size", [10, 20, 40])
def test_without_records_of_the_pool_its_uniform_batches_are_the_origin(size: int) -> None:
    """Of whatever size, though the records are of 10 images."""
    frame = Frame(features(), hindsight())
    rng = np.random.default_rng(3)
    uniform = [120 + rng.permutation(180)[:size] for _ in range(200)]
    placed = frame.place(uniform)
    assert np.abs(placed.mean(axis=0)).max() < 0.5


def test_a_batch_that_is_begun_is_between_the_origin_and_what_it_would_be() -> None:
    frame = Frame(features(), hindsight())
    batch = np.arange(120, 130)
    assert not frame.begun(batch[:0], 10).any()
    assert frame.begun(batch, 20) == pytest.approx(frame.place([batch])[0] / 2)


def test_one_record_that_counts_is_too_few() -> None:
    table = replace(hindsight(3), weights=np.array([1.0, 0.0, 0.0]))
    with pytest.raises(InvalidInput, match="two or more"):
        Frame(features(), table)


def test_a_gaussian_process_sees_what_bends() -> None:
    """A worth that peaks between the tilts: a line cannot rank it."""
    table = hindsight(60)
    middle = np.array([-((POINTS[batch, 0].mean()) ** 2) for batch in table.batches])
    table = replace(table, scores=middle, rotations=np.zeros(60, dtype=np.int64))
    straight, bent = Ridge(features()), GaussianProcess(features())
    straight.fit(table)
    bent.fit(table)
    errors = [float(((model.left_out() - table.scores) ** 2).mean()) for model in (straight, bent)]
    assert errors[1] < 0.9 * errors[0]
    pool = np.setdiff1d(np.arange(len(POINTS)), LABELLED)
    best = [abs(POINTS[model.fill(pool, 10)[0][:10], 0].mean()) for model in (straight, bent)]
    assert best[1] < min(best[0], 0.3)


@pytest.mark.parametrize("make", [Ridge, GaussianProcess])
def test_what_a_rotation_measured_has_no_part_in_its_left_out_estimates(
    make: type[Ridge | GaussianProcess],
) -> None:
    table = hindsight(24, noise=0.01)
    rng = np.random.default_rng(0)
    other = replace(
        table, scores=np.where(table.rotations == 1, rng.permutation(table.scores), table.scores)
    )
    first, second = make(features()), make(features())
    first.fit(table)
    second.fit(other)
    rows = table.rotations == 1
    gains, again = (
        (model.left_out() - of.scores + of.deviations())[rows]
        for model, of in ((first, table), (second, other))
    )
    assert np.ptp(gains) > 0
    assert gains == pytest.approx(again)


@pytest.mark.parametrize("make", [Ridge, GaussianProcess])
def test_without_a_rotation_a_batch_is_filled_as_if_nothing_had_been_measured_there(
    make: type[Ridge | GaussianProcess],
) -> None:
    table = hindsight(24, noise=0.01)
    shuffled = np.random.default_rng(0).permutation(table.scores)
    other = replace(table, scores=np.where(table.rotations == 1, shuffled, table.scores))
    first, second = make(features()), make(features())
    first.fit(table)
    second.fit(other)
    pool = np.setdiff1d(LABELLED, BASES[1])
    orders = [model.without(1).fill(pool, 10)[0].tolist() for model in (first, second)]
    assert orders[0] == orders[1]
    assert (
        first.without(2).fill(pool, 10)[0].tolist() != second.without(2).fill(pool, 10)[0].tolist()
    )


@pytest.mark.parametrize("make", [Ridge, GaussianProcess])
def test_slopes_are_those_of_the_estimate(make: type[Ridge | GaussianProcess]) -> None:
    model = make(features())
    model.fit(hindsight(24, noise=0.01))
    batch = np.setdiff1d(LABELLED, BASES[1])[:10]
    (placed,) = model._frame.place([batch])
    step = 1e-4 * np.random.default_rng(0).standard_normal(len(placed))
    shifted = [placed - step, placed + step]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model._frame, "place", lambda batches: np.asarray(shifted))
        (low, high), _ = model.estimate([batch, batch])
    assert model.slopes(batch, len(batch)) @ step == pytest.approx((high - low) / 2, rel=1e-3)


@pytest.mark.parametrize("make", [Ridge, GaussianProcess])
def test_without_the_only_rotation_there_is_no_model(
    make: type[Ridge | GaussianProcess],
) -> None:
    table = hindsight(24)
    model = make(features())
    model.fit(replace(table, rotations=np.ones(24, dtype=np.int64)))
    with pytest.raises(InvalidInput, match="fewer than two records"):
        model.without(1)


def test_the_left_out_estimates_of_a_gaussian_process_are_those_of_a_fit_without() -> None:
    table = replace(hindsight(12, noise=0.01), rotations=np.zeros(12, dtype=np.int64))
    model = GaussianProcess(features())
    model.fit(table)
    at = 5
    covariance = model._kernel(
        model._rows, model._rows, model._shape.bend, model._shape.length
    ) + model._noise * np.eye(12)
    levels = 1e6 * (table.groups[:, None] == table.groups)  # a prior that says nothing
    total = covariance + levels
    keep = np.arange(12) != at
    weights = np.linalg.solve(total[np.ix_(keep, keep)], table.scores[keep])
    assert model.left_out()[at] == pytest.approx(float(total[at, keep] @ weights), abs=1e-4)


@pytest.mark.parametrize("make", [Ridge, GaussianProcess])
def test_what_is_known_of_single_images_is_not_taken_for_knowledge_of_others(
    make: type[Ridge | GaussianProcess],
) -> None:
    """Each image has a worth of its own that nothing shows: records that share images rank one
    another, and say nothing about images they do not hold.
    """
    own = np.random.default_rng(4).normal(size=len(POINTS))
    table = hindsight(120, axes=8)
    table = replace(table, scores=np.array([own[batch].mean() for batch in table.batches]))
    shared = replace(table, rotations=np.zeros(120, dtype=np.int64))
    model = make(features())
    model.fit(shared)
    assert model.reliability(np.random.default_rng(0)).informed
    model.fit(table)
    assert not model.reliability(np.random.default_rng(0)).informed


@pytest.mark.parametrize("make", [Ridge, GaussianProcess])
def test_a_twin_is_estimated_without_the_record_it_is_a_twin_of(
    make: type[Ridge | GaussianProcess],
) -> None:
    table = hindsight(24, noise=0.01)
    twin = replace(table, weights=np.where(np.arange(24) == 2, 0.0, 1.0))
    twin = replace(twin, batches=(*table.batches[:2], table.batches[4], *table.batches[3:]))
    raised = replace(twin, scores=twin.scores + 0.1 * (np.arange(24) == 4))
    first, second = make(features()), make(features())
    first.fit(twin)
    second.fit(raised)
    gains, again = (
        float((model.left_out() - of.scores + of.deviations())[2])
        for model, of in ((first, twin), (second, raised))
    )
    assert gains == pytest.approx(again)

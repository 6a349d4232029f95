import pytest

from mgral_service.domain.records import TablePoint, Trial
from mgral_service.strategies import CLASSICAL
from mgral_service.strategies.trials import (
    GAINED_ELSEWHERE,
    RIDGE,
    best_classical,
    outdone,
    trials,
)


def point(design: str, gain: float, weight: float = 1.0) -> TablePoint:
    return TablePoint(0, design, 0.3 + gain, 0.3, 1.0, "hindsight", weight, 0.3)


def by_name(found: tuple[Trial, ...]) -> dict[str, Trial]:
    return {one.name: one for one in found}


def test_the_mean_of_many_records_counts_more_than_one_lucky_record() -> None:
    points = [point("a", 0.02)] * 4 + [point("b", 0.03), point("tilted", 0.5)]
    first, second = trials(points, ("a", "b"))
    assert (first.name, first.records, second.name) == ("a", 4, "b")
    assert [first.gain, first.expected, second.expected] == pytest.approx([0.02, 0.08 / 6, 0.01])


def test_what_a_strategy_gained_elsewhere_counts_as_two_records() -> None:
    assert Trial("a", 2, 0.03, elsewhere=0.01).expected == pytest.approx(0.02)
    assert Trial("a", 0, 0.0, elsewhere=0.01).expected == pytest.approx(0.01)
    assert Trial("a", 6, -0.03, elsewhere=0.01).expected == pytest.approx(-0.02)


def test_what_luck_may_have_given_is_not_safe() -> None:
    """Records spread by 0.03; six that gained 0.04 are beyond one standard error, one is not."""
    points = [point("tilted", 0.03), point("tilted", -0.03)] * 50
    few = [*points, point("a", 0.04), point("b", 0.01)]
    assert best_classical(trials(few, ("a", "b"))) is None
    best = best_classical(trials([*few, *[point("a", 0.04)] * 5], ("a", "b")))
    assert best is not None
    assert best.name == "a"
    assert best.spread == pytest.approx(0.03, abs=0.001)
    assert best.safe == pytest.approx(0.03 - best.spread / 8**0.5)


def test_two_lucky_records_do_not_outweigh_what_other_pools_told() -> None:
    """As core-set distance once had beside 40 labelled photographs; its batch of the pool lost."""
    points = [point("coreset", 0.014), point("coreset", 0.006), point("class_balance", 0.0)]
    best = best_classical(trials(points, CLASSICAL))
    assert best is not None
    assert best.name != "coreset"


def test_lucky_uniform_batches_do_not_win_a_trial() -> None:
    lucky = [point("uniform", 0.03)] * 4
    assert best_classical(trials(lucky, ("uniform",))) is None
    best = best_classical(trials([*lucky, *[point("class_balance", 0.02)] * 4], CLASSICAL))
    assert best is not None
    assert best.name == "class_balance"


def test_untried_strategies_are_expected_to_gain_what_they_did_elsewhere() -> None:
    found = trials([], CLASSICAL)
    assert by_name(found).keys() == CLASSICAL.keys()  # the ridge is no strategy of its own
    best = best_classical(found)
    assert best is not None
    assert best.name == max(GAINED_ELSEWHERE, key=GAINED_ELSEWHERE.__getitem__)
    assert by_name(found)["uniform"].expected == 0.0


def test_every_strategy_but_uniform_was_seen_elsewhere() -> None:
    assert {*GAINED_ELSEWHERE, "uniform"} == {*CLASSICAL}


def test_records_that_do_not_count_are_no_trial() -> None:
    found = by_name(trials([point("a", 0.02), point("b", 0.03, weight=0.0)], ("a", "b")))
    assert (found["a"].records, found["b"].records, found["b"].gain) == (1, 0, 0.0)


def test_records_of_earlier_cycles_count_alike_and_are_told_apart() -> None:
    earlier = [point("b", 0.01), point("b", 0.03), point("a", 0.0, weight=0.0)]
    first, second = trials([point("a", 0.01), point("b", -0.01)], ("a", "b"), earlier)
    assert (first.name, first.records, first.earlier) == ("b", 3, 2)
    assert (second.name, second.records, second.earlier) == ("a", 1, 0)
    assert first.gain == pytest.approx(0.01)


def test_ties_go_by_name() -> None:
    found = trials([point("b", 0.02), point("a", 0.02)], ("b", "a"))
    assert [one.name for one in found] == ["a", "b"]


@pytest.mark.parametrize(("gain", "beaten"), [(0.01, True), (0.03, False)])
def test_the_ridge_is_outdone_where_a_classical_strategy_is_expected_to_gain_more(
    gain: float, beaten: bool
) -> None:
    points = [*[point(RIDGE, gain)] * 2, *[point("a", 0.02)] * 2, *[point("tilted", 0.0)] * 40]
    found = outdone(trials(points, ("a",)))
    assert (found is not None) == beaten
    if found:
        assert [one.name for one in found] == [RIDGE, "a"]


def test_a_ridge_that_was_not_tried_is_not_outdone() -> None:
    assert outdone(trials([point("a", 0.02)], ("a",))) is None

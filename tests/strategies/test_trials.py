import pytest

from mgral_service.domain.records import TablePoint
from mgral_service.strategies.trials import best_classical, trials


def point(design: str, gain: float, weight: float = 1.0) -> TablePoint:
    return TablePoint(0, design, 0.3 + gain, 0.3, 1.0, "hindsight", weight, 0.3)


def test_the_mean_of_many_records_counts_more_than_one_lucky_record() -> None:
    points = [point("entropy", 0.02)] * 4 + [point("coreset", 0.03), point("tilted", 0.5)]
    first, second = trials(points, ("uniform", "coreset", "entropy"))
    assert (first.name, first.records, second.name) == ("entropy", 4, "coreset")
    assert [first.gain, first.expected, second.expected] == pytest.approx([0.02, 0.016, 0.015])


def test_what_luck_may_have_given_is_not_safe() -> None:
    """Records spread by 0.03; three that gained 0.04 are beyond one standard error, one is not."""
    points = [point("tilted", 0.03), point("tilted", -0.03)] * 50
    few = [*points, point("entropy", 0.04), point("coreset", 0.01)]
    assert best_classical(trials(few, ("entropy", "coreset"))) is None
    many = [*few, point("entropy", 0.04), point("entropy", 0.04)]
    best = best_classical(trials(many, ("entropy", "coreset")))
    assert best is not None
    assert best.name == "entropy"
    assert best.spread == pytest.approx(0.03, abs=0.001)
    assert best.safe == pytest.approx(0.03 - best.spread / 2)


def test_records_that_do_not_count_are_no_trial() -> None:
    points = [point("entropy", 0.02), point("coreset", 0.01), point("uniform", 0.03, weight=0.0)]
    found = trials(points, ("uniform", "coreset", "entropy"))
    assert [one.name for one in found] == ["entropy", "coreset"]


def test_records_of_earlier_cycles_count_alike_and_are_told_apart() -> None:
    earlier = [point("coreset", 0.01), point("coreset", 0.03), point("entropy", 0.0, weight=0.0)]
    points = [point("entropy", 0.01), point("coreset", -0.01)]
    first, second = trials(points, ("uniform", "coreset", "entropy"), earlier)
    assert (first.name, first.records, first.earlier) == ("coreset", 3, 2)
    assert (second.name, second.records, second.earlier) == ("entropy", 1, 0)
    assert first.gain == pytest.approx(0.01)


def test_one_strategy_alone_is_no_trial_and_ties_go_by_name() -> None:
    assert trials([point("entropy", 0.02)], ("entropy", "coreset")) == ()
    found = trials([point("entropy", 0.02), point("coreset", 0.02)], ("entropy", "coreset"))
    assert [one.name for one in found] == ["coreset", "entropy"]

import pytest

from mgral_service.domain.records import TablePoint
from mgral_service.strategies.trials import trials


def point(design: str, gain: float, weight: float = 1.0) -> TablePoint:
    return TablePoint(0, design, 0.3 + gain, 0.3, 1.0, "hindsight", weight, 0.3)


def test_the_mean_of_many_records_counts_more_than_one_lucky_record() -> None:
    points = [point("entropy", 0.02)] * 4 + [point("coreset", 0.03), point("tilted", 0.5)]
    first, second = trials(points, ("uniform", "coreset", "entropy"))
    assert (first.name, first.records, second.name) == ("entropy", 4, "coreset")
    assert [first.gain, first.expected, second.expected] == pytest.approx([0.02, 0.016, 0.015])


def test_records_that_do_not_count_are_no_trial() -> None:
    assert trials([point("entropy", 0.02, weight=0.0)], ("entropy",)) == ()

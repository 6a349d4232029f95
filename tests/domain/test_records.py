import pytest

from mgral_service.domain.records import Reconciliation, Reliability, Status


def test_a_status_only_moves_forward_and_ends() -> None:
    for old in Status:
        for new in Status:
            forward = new.order > old.order and not old.terminal
            assert old.may_become(new) == forward
    assert [one for one in Status if one.terminal] == [
        Status.SUCCEEDED,
        Status.FAILED,
        Status.CANCELLED,
    ]


def test_when_a_selection_exists_and_a_driver_works() -> None:
    assert not Status.TRAINING_AGENT.has_selection
    assert Status.SELECTED.has_selection
    assert not Status.FAILED.has_selection
    assert Status.QUEUED.driven
    assert not Status.SELECTED.driven
    assert not Status.CANCELLED.driven


def test_a_reward_is_informed_if_its_interval_lies_above_zero() -> None:
    assert Reliability(9, 0.5, 0.1, 0.8).informed
    assert not Reliability(9, 0.5, 0.0, 0.8).informed


@pytest.mark.parametrize(
    ("low", "verdict"),
    [
        (0.1, "carried information"),
        (-0.2, "may have carried information"),
        (-0.4, "carried no information"),
    ],
)
def test_a_reward_leans_if_the_middle_half_of_its_interval_lies_above_zero(
    low: float, verdict: str
) -> None:
    found = Reliability(9, 0.3, low, 0.9)
    assert found.leaning == (low > -0.4)
    assert found.verdict == verdict


def test_a_reconciliation_is_complete_if_nothing_is_left_over() -> None:
    assert Reconciliation(("a",), (), (), ()).complete
    assert not Reconciliation(("a",), (), ("b",), ()).complete

from mgral_service.domain.records import Reconciliation, Status


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


def test_a_reconciliation_is_complete_if_nothing_is_left_over() -> None:
    assert Reconciliation(("a",), (), (), ()).complete
    assert not Reconciliation(("a",), (), ("b",), ()).complete

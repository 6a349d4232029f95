from __future__ import annotations

import pickle

import pytest

from mgral_service.domain import errors

ALL = [
    errors.MgralError("x"),
    errors.InvalidInput("budget", "must be 1 or more"),
    errors.DatasetRefused("train.json", "is empty"),
    errors.IdempotencyMismatch("key-1"),
    errors.NotFound("cycle", "c1"),
    errors.Unreadable("cycle", "c1", "no field `spec`"),
    errors.Conflict("x"),
    errors.AlreadyExists("dataset", "digits"),
    errors.CycleNotReady("c1", "QUEUED"),
    errors.IllegalTransition("c1", "FAILED", "QUEUED"),
    errors.LeaseHeld("c1", "driver-1"),
    errors.StaleLease("c1", 7),
    errors.ProxyFailed(3, "CUDA out of memory"),
    errors.TooFewRecords(2, 6, "killed"),
    errors.Unavailable("the store", "connection refused"),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_an_error_survives_pickling(error: errors.MgralError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert back.args == error.args
    assert vars(back) == vars(error)


def test_every_error_is_examined_above() -> None:
    def tree(kind: type[errors.MgralError]) -> set[type[errors.MgralError]]:
        return {kind, *(below for child in kind.__subclasses__() for below in tree(child))}

    named = {kind for kind in tree(errors.MgralError) if kind.__module__ == errors.__name__}
    assert named == {type(error) for error in ALL}


def test_messages_say_what_to_do() -> None:
    assert str(errors.InvalidInput("budget", "must be 1 or more")) == "budget: must be 1 or more"
    assert "poll GET /cycles/c1" in str(errors.CycleNotReady("c1", "QUEUED"))
    assert "choose another name" in str(errors.AlreadyExists("dataset", "digits"))

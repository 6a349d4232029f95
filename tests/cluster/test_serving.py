"""What a ranker makes of a replica's troubles. The replicas themselves: tests/test_one_cycle.py."""

from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError, RayTaskError
from ray.serve.exceptions import BackPressureError

from mgral_service.cluster.serving import ServeRanker
from mgral_service.domain.errors import MgralError, NotFound, Unavailable


class Failing:
    """A handle whose answer is an error."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.top = self

    def options(self, **_: Any) -> "Failing":
        return self

    def remote(self, budget: int) -> "Failing":
        return self

    def result(self, timeout_s: float) -> None:
        raise self._error


ABSENT = NotFound("trained agent of cycle", "cyc_1")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (TimeoutError(), Unavailable),
        (BackPressureError(32, 32), Unavailable),
        (ActorUnavailableError("gone", None), Unavailable),
        (RayTaskError("top", "traceback", ABSENT), NotFound),
        (RayTaskError("top", "traceback", ZeroDivisionError()), RayTaskError),
    ],
)
def test_an_error_stays_what_it_is(error: Exception, raised: type[Exception]) -> None:
    ranker = ServeRanker()
    ranker._handle = Failing(error)
    with pytest.raises(raised) as caught:
        ranker("cyc_1", 5)
    assert isinstance(caught.value, MgralError) == (raised is not RayTaskError)

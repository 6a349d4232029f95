import pytest

from mgral_service.domain.evidence import Reliability


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

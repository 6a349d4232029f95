from mgral_service.domain.report import Reliability


def test_a_reward_is_informed_if_its_interval_lies_above_zero() -> None:
    assert Reliability(9, 0.5, 0.1, 0.8).informed
    assert not Reliability(9, 0.5, 0.0, 0.8).informed

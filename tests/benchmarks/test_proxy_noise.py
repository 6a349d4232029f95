import pytest

from benchmarks.lib.trainings import Outcome
from benchmarks.proxy_noise import MEANS, means, seeds_of


def test_a_mean_of_several_trainings_is_held_against_as_many_others() -> None:
    count = MEANS["head"]
    assert len(set(seeds_of("head"))) == 2 * count
    noise = [0.02, -0.02] * count  # cancels in a mean of two
    trained = [[Outcome(batch / 10 + error, 0.0, 3.0) for error in noise] for batch in range(4)]
    figures = means("head", trained, 3.0)
    assert figures["head_x2_ap50_correlation"] == pytest.approx(1.0)
    assert figures["head_x4_seconds"] == 12.0
    assert "head_x8_seconds" not in figures
    assert means("full", trained, 3.0) == {}

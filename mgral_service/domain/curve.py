"""A learning curve that was broken off, continued to its end."""

from __future__ import annotations

import numpy as np

from mgral_service.domain.arrays import FloatArray


def extrapolated(steps: FloatArray, maps: FloatArray, at: float) -> float:
    """mAP that a run would reach at step `at`, a fraction in [0, 1].

    steps [K]  optimiser steps, > 0, rising
    maps  [K]  mAP after them

    A least squares fit of map(t) = a - b / t, b >= 0: what is still to come shrinks as 1 / t. With
    one point, or a curve that falls, its mean.
    """
    past = 1 / steps - np.mean(1 / steps)
    spread = float(past @ past)
    slope = 0.0 if spread == 0 else min(0.0, float(past @ maps) / spread)
    value = float(maps.mean()) + slope * (1 / at - float(np.mean(1 / steps)))
    return min(1.0, max(0.0, value))

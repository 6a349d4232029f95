"""Everything random in a cycle, from its one seed."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream of random numbers is for: one seed, no stream used twice."""

    CLASSICAL = 1
    DESIGN = 2
    PROXY = 3
    SELECT = 4
    DETECTOR = 5
    INITIAL = 6
    DIVISION = 7
    SCORING = 8
    AGENT = 9
    UNLABELLED = 10


def stream(seed: int, purpose: Purpose, *more: int) -> np.random.Generator:
    """`more` tells several streams of one purpose apart; zeros at its end make no difference."""
    return np.random.default_rng([seed, purpose, *more])


def seed_of(seed: int, purpose: Purpose, *more: int) -> int:
    """A seed in [0, 2**31) for libraries that take one number."""
    return int(stream(seed, purpose, *more).integers(2**31))

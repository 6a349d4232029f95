"""How classical strategies fared where they were tried: in records of batches that they chose.

A batch is measured as a whole here. What its strategy gained can hold for images that no record
holds, where what single features seemed to be worth does not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from mgral_service.domain.records import TablePoint


@dataclass(frozen=True, slots=True)
class Trial:
    """gain: mean of a strategy's records over the others of their kind, a fraction of mAP."""

    name: str
    records: int
    gain: float

    @property
    def expected(self) -> float:
        """The gain as if one record more had gained nothing."""
        return self.gain * self.records / (self.records + 1)


def trials(points: Sequence[TablePoint], names: Collection[str]) -> tuple[Trial, ...]:
    """Of the strategies `names` that records which count are of; highest expected gain first, ties
    by name. None unless there are two: a lone one was compared with no other.
    """
    gains: dict[str, list[float]] = {name: [] for name in names}
    for one in points:
        if one.design in gains and one.weight > 0:
            gains[one.design].append(one.measured - one.level)
    found = [Trial(name, len(some), sum(some) / len(some)) for name, some in gains.items() if some]
    if len(found) < 2:
        return ()
    return tuple(sorted(found, key=lambda one: (-one.expected, one.name)))

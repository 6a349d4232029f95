"""How classical strategies fared where they were tried: in records of batches that they chose.

A batch is measured as a whole here. What its strategy gained can hold for images that no record
holds, where what single features seemed to be worth does not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from mgral_service.domain.records import TablePoint, Trial


def trials(
    points: Sequence[TablePoint], names: Collection[str], earlier: Sequence[TablePoint] = ()
) -> tuple[Trial, ...]:
    """Of the strategies `names` that records which count are of, those of earlier cycles alike;
    highest expected gain first, ties by name. None unless there are two: a lone one was compared
    with no other.
    """
    before, now = _gains(earlier, names), _gains(points, names)
    found = []
    for name in names:
        gains = before[name] + now[name]
        if gains:
            found.append(Trial(name, len(gains), sum(gains) / len(gains), len(before[name])))
    if len(found) < 2:
        return ()
    return tuple(sorted(found, key=lambda one: (-one.expected, one.name)))


def _gains(points: Sequence[TablePoint], names: Collection[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in names}
    for one in points:
        if one.design in found and one.weight > 0:
            found[one.design].append(one.measured - one.level)
    return found

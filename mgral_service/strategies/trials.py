"""How strategies fared where they were tried: in records of batches that they chose.

A batch is measured as a whole here. What its strategy gained can hold for images that no record
holds, where what single features seemed to be worth does not. The ridge is tried as classical
strategies are: taught by the records of other rotations, it chooses from a reservoir.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress

from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import Site, ValueModel
from mgral_service.domain.records import DesignedBatch, TablePoint, Trial
from mgral_service.domain.ridge import Ridge
from mgral_service.strategies.view import PoolView

RIDGE = "ridge"


def unseen_choices(
    model: ValueModel, sites: Sequence[Site], view: PoolView
) -> tuple[DesignedBatch, ...]:
    """What a fitted ridge would choose from each reservoir if it knew no record of it; none of
    other models, of the pool itself, or where no other records are left.
    """
    found = []
    for site in sites:
        if isinstance(model, Ridge) and site.rotation:
            with suppress(InvalidInput):  # too few records of other rotations
                order, _ = model.without(site.rotation).fill(view.places(site.images), site.size)
                chosen = view.names(order[: site.size])
                found.append(DesignedBatch(chosen, RIDGE, site.source, site.rotation))
    return tuple(found)


def trials(
    points: Sequence[TablePoint], names: Collection[str], earlier: Sequence[TablePoint] = ()
) -> tuple[Trial, ...]:
    """Of the strategies `names` that records which count are of, those of earlier cycles alike;
    highest safe gain first, ties by name. None unless there are two: a lone one was compared with
    no other.
    """
    before, now = _gains(earlier, names), _gains(points, names)
    counted = [one.measured - one.level for one in points if one.weight > 0]
    spread = (sum(gain**2 for gain in counted) / max(len(counted), 1)) ** 0.5
    found = []
    for name in names:
        gains = before[name] + now[name]
        if gains:
            mean = sum(gains) / len(gains)
            found.append(Trial(name, len(gains), mean, len(before[name]), spread))
    if len(found) < 2:
        return ()
    return tuple(sorted(found, key=lambda one: (-one.safe, one.name)))


def _gains(points: Sequence[TablePoint], names: Collection[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in names}
    for one in points:
        if one.design in found and one.weight > 0:
            found[one.design].append(one.measured - one.level)
    return found


def outdone(tried: Sequence[Trial]) -> tuple[Trial, Trial] | None:
    """The ridge's trial and that of the best classical strategy, if it did better."""
    ridge = next((one for one in tried if one.name == RIDGE), None)
    best = best_classical(tried)
    if ridge is None or best is None or best.safe <= ridge.safe:
        return None
    return ridge, best


def best_classical(tried: Sequence[Trial]) -> Trial | None:
    """The first that is not the ridge's, if it gained more than luck gives."""
    return next((one for one in tried if one.name != RIDGE and one.safe > 0), None)

"""How strategies fared where they were tried: in records of batches that they chose.

A batch is measured as a whole here. What its strategy gained can hold for images that no record
holds, where what single features seemed to be worth does not. The value model is tried as classical
strategies are: taught by the records of other rotations, it chooses from a reservoir.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from math import hypot

from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.evidence import TablePoint, Trial
from mgral_service.domain.feature_model import FeatureModel
from mgral_service.domain.ports import Site, ValueModel
from mgral_service.domain.records import AGAIN, DesignedBatch
from mgral_service.strategies.view import PoolView

LEARNED = ("ridge", "gp")  # value models whose own batches compete
SURE = 2.0  # standard errors; benchmarks/strategy_gains.py tells what others give
DEFAULT = "entropy_root"  # in benchmarks/strategy_gains.py the best on average


def together(name: str) -> str:
    """What DEFAULT and a value model choose by the mean of an image's two ranks."""
    return f"{name}_and_{DEFAULT}"


def unseen_choices(
    model: ValueModel, sites: Sequence[Site], view: PoolView
) -> tuple[DesignedBatch, ...]:
    """What a fitted model, if one of LEARNED, would choose from each reservoir if it knew no record
    of it; none of the pool itself, or where no other records are left.
    """
    found = []
    for site in sites:
        if isinstance(model, FeatureModel) and site.rotation:
            with suppress(InvalidInput):  # too few records of other rotations
                order, _ = model.without(site.rotation).fill(view.places(site.images), site.size)
                chosen = view.names(order[: site.size])
                found.append(DesignedBatch(chosen, model.name, site.source, site.rotation))
    return tuple(found)


def trials(
    points: Sequence[TablePoint], names: Collection[str], earlier: Sequence[TablePoint] = ()
) -> tuple[Trial, ...]:
    """Of the classical strategies `names`, and of value models that were tried, over all records
    that count and tryouts, those of earlier cycles alike; highest safe gain first, ties by name.

    A gain is over the uniform batches of its kind: tryouts, which hold more of what is good, are of
    another level than the records that teach.
    """
    teaching = {one.rotation for one in points if one.weight > 0}
    zeros = {kind: _uniform_gain((*earlier, *points), teaching, kind) for kind in (True, False)}
    counted = [_gain(one) for one in points if _tells(one)]
    spread = (sum(gain**2 for gain in counted) / max(len(counted), 1)) ** 0.5

    def gains(some: Sequence[TablePoint], name: str) -> list[float]:
        tried = [one for one in some if one.design == name and _tells(one)]
        return [_gain(one) - zeros[one.rotation in teaching] for one in tried]

    found = []
    for name in (*LEARNED, *names):
        before, now = gains(earlier, name), gains(points, name)
        every = before + now
        if every or name not in LEARNED:
            mean = sum(every) / max(len(every), 1)
            found.append(Trial(name, len(every), mean, len(before), spread))
    return tuple(sorted(found, key=lambda one: (-one.safe, one.name)))


def _gain(one: TablePoint) -> float:
    return one.measured - one.level


def _uniform_gain(points: Sequence[TablePoint], teaching: Collection[int], kind: bool) -> float:
    """Of rotations that teach or of others; 0 without uniform batches there."""
    found = [
        _gain(one)
        for one in points
        if one.design == "uniform" and (one.rotation in teaching) == kind and _tells(one)
    ]
    return sum(found) / max(len(found), 1)


def _tells(one: TablePoint) -> bool:
    """Of its strategy; tryouts do, though they teach no value model. Records without labels do
    where there are no others, not those that are trusted in part; what was measured AGAIN is of
    another seed's level.
    """
    return one.design != AGAIN and (one.weight == 1 or one.source == "hindsight")


def outdone(model: str, tried: Sequence[Trial]) -> tuple[Trial, Trial] | None:
    """The value model's trial and that of the best classical strategy, if this gained something and
    promises more, standard errors allowed for; None as well where the model was not tried.
    """
    own = next((one for one in tried if one.name == model), None)
    best = best_classical(tried)
    return (own, best) if own and best.safe > max(0.0, own.safe) else None


def best_classical(tried: Sequence[Trial], sure: float = SURE) -> Trial:
    """DEFAULT's, or that of the strategy which is furthest ahead of it, if by more than `sure`
    standard errors of the difference. If DEFAULT was not tried, it is taken for a uniform batch.

    Of eight records each, equally good ones overrule it in 10 of 100 cycles.
    """
    plain = Trial(DEFAULT, 0, 0.0)
    default = next((one for one in tried if one.name == DEFAULT), plain)
    unsure = default.error if default.records else 0.0

    def lead(one: Trial) -> float:
        return one.gain - default.gain - sure * hypot(one.error, unsure)

    rivals = [one for one in tried if one.name not in (*LEARNED, DEFAULT)]
    best = max(rivals, key=lead, default=default)
    return best if lead(best) > 0 else default

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
from mgral_service.domain.records import DesignedBatch
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
    """
    every = (*LEARNED, *names)
    before, now = _gains(earlier, every), _gains(points, every)
    counted = [one.measured - one.level for one in points if _tells(one)]
    spread = (sum(gain**2 for gain in counted) / max(len(counted), 1)) ** 0.5
    found = []
    for name in every:
        gains = before[name] + now[name]
        if gains or name not in LEARNED:
            mean = sum(gains) / max(len(gains), 1)
            found.append(Trial(name, len(gains), mean, len(before[name]), spread))
    return tuple(sorted(found, key=lambda one: (-one.safe, one.name)))


def _gains(points: Sequence[TablePoint], names: Collection[str]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in names}
    for one in points:
        if one.design in found and _tells(one):
            found[one.design].append(one.measured - one.level)
    return found


def _tells(one: TablePoint) -> bool:
    """Of its strategy; tryouts do, though they teach no value model. Records without labels do
    where there are no others, not those that are trusted in part.
    """
    return one.weight == 1 or one.source == "hindsight"


def outdone(model: str, tried: Sequence[Trial]) -> tuple[Trial, Trial] | None:
    """The value model's trial and that of the best classical strategy, if this gained something and
    promises more, standard errors allowed for; None as well where the model was not tried.
    """
    own = next((one for one in tried if one.name == model), None)
    best = best_classical(tried)
    return (own, best) if own and best.safe > max(0.0, own.safe) else None


def best_classical(tried: Sequence[Trial], sure: float = SURE) -> Trial:
    """DEFAULT's, or that of the strategy which is furthest ahead of it, if by more than `sure`
    standard errors of the difference. If DEFAULT was not tried, it is taken for an average record.

    Of eight records each, equally good ones overrule it in 10 of 100 cycles.
    """
    average = Trial(DEFAULT, 0, 0.0)
    default = next((one for one in tried if one.name == DEFAULT), average)
    unsure = default.error if default.records else 0.0

    def lead(one: Trial) -> float:
        return one.gain - default.gain - sure * hypot(one.error, unsure)

    rivals = [one for one in tried if one.name not in (*LEARNED, DEFAULT)]
    best = max(rivals, key=lead, default=default)
    return best if lead(best) > 0 else default

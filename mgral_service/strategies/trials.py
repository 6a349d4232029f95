"""How strategies fared where they were tried: in records of batches that they chose.

A batch is measured as a whole here. What its strategy gained can hold for images that no record
holds, where what single features seemed to be worth does not. The value model is tried as classical
strategies are: taught by the records of other rotations, it chooses from a reservoir.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import hypot

from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.evidence import TablePoint, Trial
from mgral_service.domain.feature_model import FeatureModel
from mgral_service.domain.ports import Site, ValueModel
from mgral_service.domain.records import DesignedBatch
from mgral_service.strategies.view import PoolView

LEARNED = ("ridge", "gp")  # value models whose own batches compete
SURE = 2.0  # standard errors; benchmarks/strategy_gains.py tells what others give
UNIFORM = "uniform"
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
    points: Sequence[TablePoint],
    names: Collection[str],
    earlier: Sequence[Sequence[TablePoint]] = (),
) -> tuple[Trial, ...]:
    """Of the classical strategies `names`, and of value models that were tried, over all records
    that tell, those of earlier cycles alike; highest gain first, untried ones last, ties by name.
    """
    cycles = (*earlier, points)
    labelled = any(one.source == "hindsight" for some in cycles for one in some)
    known = {*LEARNED, *names, UNIFORM}
    tables = [_Tried.of(some, known, labelled) for some in cycles]
    return tuple(
        sorted(
            (
                trial
                for name in (*LEARNED, *names)
                if (trial := _trial(name, tables)).records or name not in LEARNED
            ),
            key=lambda one: (not one.records, -one.gain, one.name),
        )
    )


@dataclass(frozen=True, slots=True)
class _Tried:
    """A cycle's records of single strategies: by kind, those that teach (True) and tryouts, which
    hold more of what is good and so are of another level, the gains of each strategy. spread:
    standard deviation of a record.
    """

    gains: Mapping[bool, Mapping[str, Sequence[float]]]
    spread: float

    @classmethod
    def of(cls, points: Sequence[TablePoint], names: Collection[str], labelled: bool) -> _Tried:
        """names: of strategies; labelled: there are records with labels, so others tell nothing."""
        teaching = {one.rotation for one in points if one.weight > 0}
        gains: dict[bool, dict[str, list[float]]] = {True: {}, False: {}}
        every = []
        for one in points:
            if one.design in names and (one.source == "hindsight" if labelled else one.weight == 1):
                gain = one.measured - one.level
                every.append(gain)
                gains[one.rotation in teaching].setdefault(one.design, []).append(gain)
        spread = (sum(gain**2 for gain in every) / max(len(every), 1)) ** 0.5
        return cls(gains, spread)


def _trial(name: str, tables: Sequence[_Tried]) -> Trial:
    """Over the tables of all cycles, this one's last."""
    records = now = 0
    gain = own = shared = 0.0  # sums; of variances, the records' and that of uniform batches' means
    for table in tables:
        now = 0
        for kind in table.gains.values():
            found, uniform = kind.get(name, ()), kind.get(UNIFORM, ())
            now += len(found)
            gain += sum(found)
            own += len(found) * table.spread**2
            if uniform:
                gain -= len(found) * sum(uniform) / len(uniform)
                shared += (len(found) * table.spread) ** 2 / len(uniform)
        records += now
    count = max(records, 1)
    spread, zero = (own / count) ** 0.5, shared**0.5 / count
    return Trial(name, records, gain / count, records - now, spread, zero)


def outdone(model: str, tried: Sequence[Trial]) -> tuple[Trial, Trial] | None:
    """The value model's trial and that of the best classical strategy, if this is ahead by more
    than SURE standard errors of the difference; None as well where one of them was not tried.
    """
    own = next((one for one in tried if one.name == model), None)
    best = best_classical(tried)
    return (own, best) if own and _surely(*lead(best, own), SURE) > 0 else None


def best_classical(tried: Sequence[Trial], sure: float = SURE) -> Trial:
    """DEFAULT's, or that of the strategy which is furthest ahead of it, if by more than `sure`
    standard errors of the difference. If DEFAULT was not tried, it is taken for a uniform batch.

    Of eight records each, equally good ones overrule it in 10 of 100 cycles.
    """
    default = next((one for one in tried if one.name == DEFAULT), Trial(DEFAULT, 0, 0.0))
    rivals = [one for one in tried if one.name not in (*LEARNED, DEFAULT)]
    best = max(rivals, key=lambda one: _surely(*lead(one, default), sure), default=default)
    return best if _surely(*lead(best, default), sure) > 0 else default


def lead(one: Trial, other: Trial) -> tuple[float, float]:
    """What the one gained more, and the standard error of that.

    Classical strategies are tried beside the same uniform batches, which drop out. A value model is
    tried beside few of those; and `other` without a record is taken for a uniform batch.
    """
    gained = one.gain - other.gain
    if not other.records:
        return gained, one.error
    if (one.name in LEARNED) != (other.name in LEARNED):
        return gained, hypot(one.error, other.error)
    return gained, hypot(one.own_error, other.own_error)


def _surely(gained: float, error: float, sure: float) -> float:
    return gained - sure * error

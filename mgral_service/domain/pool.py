"""Who is labelled since which cycle, who scores proxies, who is test: the one place that keeps the
roles apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.records import DatasetRecord


@dataclass(frozen=True, slots=True)
class PoolSplit:
    """Roles by image id; disjoint, or the constructor raises InvalidInput.

    labelled    id -> number of the cycle that labelled it (0: before the first), in order of
                labelling
    unlabelled  ids a strategy may choose from
    scoring     labelled images that score proxies; never chosen, and the detector is never trained
                on them (a hindsight proxy may be on some, scored by others; domain/hindsight.py)
    test        seen by reports only
    """

    labelled: Mapping[str, int]
    unlabelled: tuple[str, ...]
    scoring: tuple[str, ...]
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        owner: dict[str, str] = {}
        for role in ("labelled", "unlabelled", "scoring", "test"):
            for name in getattr(self, role):
                if name in owner:
                    raise InvalidInput(
                        f"image {name}",
                        f"is in {owner[name]} and in {role}: each image may have one role",
                    )
                owner[name] = role


def carve_scoring(
    labelled: Iterable[str], share: float, rng: np.random.Generator
) -> tuple[str, ...]:
    """The scoring ids to take from the labelled ones when the user names none: `share` of them, at
    least one.

    At least one image stays to train on; InvalidInput if there are fewer than two.
    """
    ids = sorted(labelled)
    if len(ids) < 2:
        raise InvalidInput(
            "labelled",
            "two labelled images at least are needed: one to train on, one to score proxies",
        )
    count = min(max(1, round(share * len(ids))), len(ids) - 1)
    return tuple(sorted(rng.choice(np.array(ids), size=count, replace=False).tolist()))


def label(split: PoolSplit, ids: Iterable[str], cycle: int) -> PoolSplit:
    """The split after `cycle` labelled `ids`; InvalidInput for an id that is not unlabelled."""
    new = tuple(ids)
    unlabelled = set(split.unlabelled)
    for name in new:
        if name not in unlabelled:
            raise InvalidInput(f"image {name}", "is not in the unlabelled pool")
    chosen = set(new)
    return PoolSplit(
        {**split.labelled, **dict.fromkeys(new, cycle)},
        tuple(name for name in split.unlabelled if name not in chosen),
        split.scoring,
        split.test,
    )


def split_of(dataset: DatasetRecord, labels: Sequence[Annotations]) -> PoolSplit:
    """The roles now: as registered, then moved by the annotations of each cycle since, in order.

    An image that two cycles brought belongs to the first.
    """
    split = PoolSplit(
        dict.fromkeys(dataset.labelled, 0), dataset.unlabelled, dataset.scoring, dataset.test
    )
    for number, answered in enumerate(labels, start=1):
        new = [name for name in answered.ids if name not in split.labelled]
        split = label(split, new, number)
    return split

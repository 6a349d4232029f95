"""Who is labelled since which cycle, who scores proxies, who is test: the one place that keeps the
roles apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.records import DatasetImages
from mgral_service.domain.seeds import Purpose, stream
from mgral_service.domain.specs import CycleSpec


@dataclass(frozen=True, slots=True)
class PoolSplit:
    """Roles by image id; disjoint, or the constructor raises InvalidInput.

    labelled    id -> number of the cycle that labelled it (0: before the first), in order of
                labelling
    unlabelled  ids a strategy may choose from
    scoring     labelled images that score proxies and train nothing; empty where the default
                method scores them on the labelled images that a fold leaves out
    test        seen by reports only
    """

    labelled: Mapping[str, int]
    unlabelled: tuple[str, ...]
    scoring: tuple[str, ...]
    test: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        owner: dict[str, str] = {}
        for role in ("labelled", "unlabelled", "scoring", "test"):
            for image_id in getattr(self, role):
                if image_id in owner:
                    raise InvalidInput(
                        f"image {image_id}",
                        f"is in {owner[image_id]} and in {role}: each image may have one role",
                    )
                owner[image_id] = role


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
    labelled = tuple(ids)
    unlabelled = set(split.unlabelled)
    for image_id in labelled:
        if image_id not in unlabelled:
            raise InvalidInput(f"image {image_id}", "is not in the unlabelled pool")
    chosen = set(labelled)
    return PoolSplit(
        {**split.labelled, **dict.fromkeys(labelled, cycle)},
        tuple(image_id for image_id in split.unlabelled if image_id not in chosen),
        split.scoring,
        split.test,
    )


def split_of(images: DatasetImages, labels: Sequence[Annotations], spec: CycleSpec) -> PoolSplit:
    """The roles now: as registered, then moved by the annotations of each cycle since, in order.

    An image that two cycles brought belongs to the first. The paper's method needs scoring images:
    where the dataset names none, a share of those labelled at registration is set apart, the same
    in every cycle.
    """
    labelled, scoring = images.labelled, images.scoring
    if spec.method == "paper" and not scoring:
        rng = stream(0, Purpose.SCORING)
        scoring = carve_scoring(labelled, spec.advanced.scoring_share, rng)
        labelled = tuple(image_id for image_id in labelled if image_id not in {*scoring})
    split = PoolSplit(dict.fromkeys(labelled, 0), images.unlabelled, scoring, images.test)
    for number, answers in enumerate(labels, start=1):
        new = [image_id for image_id in answers.ids if image_id not in split.labelled]
        split = label(split, new, number)
    return split

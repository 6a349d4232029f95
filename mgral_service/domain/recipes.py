"""`method` chooses a whole recipe of defaults: the paper's values stand here and nowhere else.

Section numbers are those of MGRAL (arXiv 2601.15688). Where the paper is silent, the value is the
field's usual one and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mgral_service.domain.errors import InvalidInput

Keys = dict[str, Any]

_PAPER: Keys = {
    "choice": "agent",  # section 3.3: the agent's batch is always taken
    "table": {
        "records": 200,  # M, section 4.1 (VOC)
        "objective": "isd",  # section 4.1 (VOC, SSD300)
        "advanced": {
            "design": "uniform",  # section 3.4
            "start": "initial",  # the field's: every training starts from ImageNet's weights
            "rate": 1.0,
            "augmentations": 0,
            "repeats": 1,
            "value_model": "idw",  # section 3.5
            "distance": "exact",  # section 3.5: Wasserstein
            "cutoff": "query",  # section 3.5: mean - 1 standard deviation
        },
    },
    "agent": {
        "iterations": 2200,  # section 4.1 (VOC)
        "advanced": {
            "state": "embedding",  # section 3.3: 256 numbers and the previous score
            "draws": 1,
            "baseline": "paper",  # Eq. 2 as printed
            "memory": 0.5,  # lambda, section 4.1
            "lane": 0,  # section 3.3: one walk over the pool
            "learning_rate": 3.5e-4,  # Adam, section 4.1
            "temperature": (1.0, 1.0),
            "risk_aversion": 0.0,
            "entropy": 0.0,
            "clusters": 0,
        },
    },
}
_PAPER_ON_COCO: Keys = {
    "table": {"records": 30, "objective": "sed"},  # section 4.1 (COCO, RetinaNet): 30 a cycle
    "agent": {"iterations": 800},  # section 4.1 (COCO)
}

MOVED: Mapping[str, str] = {
    "when_uninformed": "was removed: the highest posterior gain chooses",
    "reward": "is now advanced.reward",
    "detector.optimiser": "is now detector.advanced.optimiser",
    "detector.warmup": "is now detector.advanced.warmup",
    "detector.schedule": "is now detector.advanced.schedule",
    "detector.drops": "is now detector.advanced.drops",
    "detector.precision": "is now detector.advanced.precision",
    "table.source": 'was removed: choose method = "default" or "paper"',
    "table.rotations": "is now table.folds",
    "table.online": "was removed: no figure showed that it helps",
    "table.views": "is now table.advanced.augmentations",
    "table.stop": "was removed: no figure showed that it helps",
    "table.checkpoints": "was removed: no figure showed that it helps",
    "table.average": "was removed: averaged weights always score",
    "table.common_draws": "was removed: the proxies of a fold share their draws",
    "table.twice": "was removed: the report states the error of each gain",
    **{
        f"table.{key}": f"is now table.advanced.{key}"
        for key in (
            *("design", "start", "rate", "repeats", "min_records", "max_failures"),
            *("value_model", "distance", "cutoff"),
        )
    },
    "agent.caution": "is now agent.advanced.risk_aversion",
    **{
        f"agent.{key}": f"is now agent.advanced.{key}"
        for key in (
            *("state", "draws", "baseline", "memory", "lane", "learning_rate", "temperature"),
            *("entropy", "clusters"),
        )
    },
}
"""Keys of earlier versions of a CycleSpec, and what to write instead."""

MOVED_OF_DATASETS: Mapping[str, str] = {
    "scoring_share": "is now cycle.advanced.scoring_share, which method = 'paper' alone uses",
    "seed": "was removed: nothing is drawn at registration",
}


def paper(detector: str, steps: int) -> Keys:
    """The paper's values as keys of a CycleSpec. detector: the name of the task detector, as the
    paper trains RetinaNet on COCO in another proportion than SSD300 on VOC; steps: a detector's,
    which a proxy trains as well.
    """
    recipe = _merged(_PAPER, _PAPER_ON_COCO) if detector == "retinanet" else _PAPER
    return _merged(recipe, {"method": "paper", "table": {"steps": steps}})


def completed(given: Mapping[str, Any]) -> Keys:
    """The keys of a CycleSpec as a user gave them, and beneath them those of its recipe.

    InvalidInput for a key, or a value of `choice`, of an earlier version.
    """
    refuse_moved(given, MOVED)
    if given.get("choice") == "portfolio":
        raise InvalidInput("choice", '"portfolio" was removed: set "posterior", or leave it out')
    detector = given.get("detector")
    named = detector if isinstance(detector, Mapping) else {}
    if given.get("method") != "paper":
        return dict(given)
    return _merged(paper(named.get("name", "ssdlite"), named.get("steps", 200)), given)


def refuse_moved(given: Mapping[str, Any], moved: Mapping[str, str], where: str = "") -> None:
    """InvalidInput for a key that `moved` lists."""
    for key, value in given.items():
        path = f"{where}{key}"
        if path in moved:
            raise InvalidInput(path, moved[path])
        if isinstance(value, Mapping):
            refuse_moved(value, moved, f"{path}.")


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> Keys:
    """Both, key by key; where both have one, the upper."""
    merged = dict(below)
    for key, value in above.items():
        lower = merged.get(key)
        if isinstance(lower, Mapping) and isinstance(value, Mapping):
            value = _merged(lower, value)
        merged[key] = value
    return merged

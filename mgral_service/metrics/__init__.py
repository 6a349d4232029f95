"""Reward metrics by name: add one = its file and one line here."""

from collections.abc import Callable, Mapping

from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.ports import RewardMetric
from mgral_service.domain.specs import CycleSpec
from mgral_service.metrics.coco_map import CocoMap
from mgral_service.metrics.voc_map import VocMap

METRICS: Mapping[str, Callable[[], RewardMetric]] = {
    "ap50": lambda: CocoMap("ap50"),
    "ap30": lambda: CocoMap("ap30"),
    "ap": lambda: CocoMap("ap"),
    "voc07": lambda: VocMap("voc07"),
    "voc12": lambda: VocMap("voc12"),
}


def check(spec: CycleSpec) -> None:
    """InvalidInput, before anything trains, for an unknown metric or reward."""
    for where, name in (("metric", spec.metric), ("advanced.reward", spec.rewarded_by)):
        if name not in METRICS:
            raise InvalidInput(where, f"{name!r} is none of {', '.join(METRICS)}")

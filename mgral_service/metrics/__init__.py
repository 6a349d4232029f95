"""Reward metrics: from detections and truth to mAP. A metric is one file and one line here."""

from collections.abc import Callable

from mgral_service.domain.ports import RewardMetric
from mgral_service.metrics.coco_map import CocoMap
from mgral_service.metrics.voc_map import VocMap

METRICS: dict[str, Callable[[], RewardMetric]] = {
    "ap50": lambda: CocoMap("ap50"),
    "ap30": lambda: CocoMap("ap30"),
    "ap": lambda: CocoMap("ap"),
    "voc07": lambda: VocMap("voc07"),
    "voc12": lambda: VocMap("voc12"),
}

"""What all networks share: boxes of offsets, mirrored anchors, padded targets."""

import math
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from torchvision.models.detection._utils import BoxCoder

from mgral_service.detectors.matching import BOX_WEIGHTS
from mgral_service.detectors.net import DetectorNet, Targets, mirror_of
from mgral_service.domain.boxes import Annotations

CODER = BoxCoder(BOX_WEIGHTS)


def boxes_of(anchors: torch.Tensor, deltas: torch.Tensor) -> torch.Tensor:
    net = SimpleNamespace(anchors=anchors, coder=CODER)
    return DetectorNet.boxes(cast(DetectorNet, net), deltas)


def test_an_offset_by_hand() -> None:
    anchors = torch.tensor([[10.0, 10, 30, 50]])  # 20 wide, 40 high
    deltas = torch.tensor([[[1.0, -0.5, 5 * math.log(2), 0.0]]])  # tenths and fifths
    torch.testing.assert_close(boxes_of(anchors, deltas), torch.tensor([[[2.0, 8.0, 42.0, 48.0]]]))


def test_a_batch_of_offsets_decodes_image_by_image() -> None:
    draw = torch.Generator().manual_seed(0)
    low = torch.rand(9, 2, generator=draw) * 100
    anchors = torch.cat([low, low + 30], 1)
    deltas = torch.randn(3, 9, 4, generator=draw)
    boxes = boxes_of(anchors, deltas)
    for image in range(3):
        alone = CODER.decode_single(deltas[image], anchors)
        torch.testing.assert_close(boxes[image], alone)


def test_the_partner_of_an_anchor_stands_in_the_mirrored_column() -> None:
    mirror = mirror_of([2, 1], [3, 2])
    assert mirror.tolist() == [3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8, 12, 13]


def test_targets_are_padded_in_order_and_leave_out_ignored_objects() -> None:
    boxes = np.array([[1.0, 1, 5, 5], [2, 2, 8, 8], [0, 0, 4, 4]])
    truth = Annotations(
        ("a", "b", "c"),
        np.array([0, 0, 2]),
        boxes,
        np.array([0, 1, 0]),
        np.array([False, False, True]),
    )
    targets = Targets.of(truth, truth.ids, torch.device("cpu"))
    assert targets.labels.tolist() == [[1, 2], [0, 0], [0, 0]]
    np.testing.assert_allclose(targets.boxes[0], boxes[:2])

"""Both sides of the speed benchmark compute the same loss."""

import pytest
import torch

from benchmarks.training_speed import SPECS, apart
from mgral_service.detectors.batches import Batch
from mgral_service.detectors.local import build
from mgral_service.detectors.net import Targets


@pytest.mark.parametrize("name", ["ssdlite"])
def test_both_sides_have_the_same_loss(name: str) -> None:
    spec, _ = SPECS[name]
    images = torch.rand(2, 3, spec.size, spec.size, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[[10.0, 10.0, 90.0, 80.0]], [[40.0, 30.0, 120.0, 150.0]]])
    batch = Batch(images, Targets(boxes, torch.tensor([[1], [2]])))
    net = build(spec, ("a", "b"), torch.device("cpu"))
    assert apart(net, name, batch) < 1e-5

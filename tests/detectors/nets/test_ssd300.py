"""SSD300: torchvision's network, losses and boxes; weights by name; and a step that learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.vgg import cfgs, make_layers

from mgral_service.detectors.net import RawOutput, Targets
from mgral_service.detectors.nets.ssd300 import Ssd300
from mgral_service.detectors.objectives.csd import Aligned
from mgral_service.detectors.weights import read_weights
from mgral_service.domain.errors import InvalidInput


@pytest.fixture(scope="module")
def net() -> Ssd300:
    return Ssd300(20, 300, freeze=False).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.rand(2, 3, 300, 300, generator=torch.Generator().manual_seed(0))


TARGETS = Targets(
    torch.tensor([[[20.0, 30, 120, 200], [150, 150, 280, 290]], [[5.0, 5, 60, 60], [0, 0, 0, 0]]]),
    torch.tensor([[3, 20], [7, 0]]),
)


def test_it_has_the_size_the_paper_gives(net: Ssd300) -> None:
    assert sum(weight.numel() for weight in net.parameters()) == 26_285_486
    assert net.anchors.shape == (8732, 4)
    assert net.levels == (5776, 2166, 600, 150, 36, 4)


def test_outputs_and_losses_are_torchvisions(net: Ssd300, images: Tensor) -> None:
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21).train()
    theirs.load_state_dict(net.state_dict())
    truth = [
        {
            "boxes": boxes[labels > 0],
            "labels": labels[labels > 0],
        }
        for boxes, labels in zip(TARGETS.boxes, TARGETS.labels, strict=True)
    ]
    with torch.no_grad():
        expected = theirs(list(images), truth)
        raw = net(images)
        ours = net.supervised_loss(raw, TARGETS)
    total = expected["bbox_regression"] + expected["classification"]
    torch.testing.assert_close(ours, total, rtol=1e-5, atol=1e-5)
    assert raw.pooled.shape == (2, net.embedding) == (2, 256)


def test_boxes_are_torchvisions(net: Ssd300) -> None:
    deltas = 0.3 * torch.randn(1, 8732, 4, generator=torch.Generator().manual_seed(1))
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=21)
    expected = theirs.box_coder.decode_single(deltas[0], net.anchors)
    torch.testing.assert_close(net.boxes(deltas)[0], expected)


def test_what_an_anchor_sees_of_the_flip_is_mirrored_back_to_the_pixel(net: Ssd300) -> None:
    assert torch.equal(net.mirror[net.mirror], torch.arange(8732))
    draw = torch.Generator().manual_seed(2)
    raw_of_flip = RawOutput(
        torch.zeros(1, 8732, 21), torch.randn(1, 8732, 4, generator=draw), torch.zeros(1, 256)
    )
    left, top, right, bottom = net.boxes(raw_of_flip.deltas)[0].unbind(1)
    wanted = torch.stack([300 - right, top, 300 - left, bottom], 1)
    back = net.boxes(Aligned.of(raw_of_flip).flipped(net).loc)[0]
    torch.testing.assert_close(back[net.mirror], wanted, rtol=1e-4, atol=1e-3)
    assert float(net.shift.abs().max()) > 0.5  # cells of 64 pixels, five of them: 320, not 300


def test_a_seed_gives_the_weights_and_a_frozen_backbone_no_gradient(images: Tensor) -> None:
    net = Ssd300(2, 300, freeze=True)
    first = net.head.state_dict()["classification_head.module_list.0.weight"].clone()
    net.initialise(1)
    other = net.head.state_dict()["classification_head.module_list.0.weight"].clone()
    net.initialise(0)
    again = net.head.state_dict()["classification_head.module_list.0.weight"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    features = net.features(images)
    assert [level.requires_grad for level in features] == [False, False]
    net.predict(features).logits.sum().backward()  # type: ignore[no-untyped-call]
    learnt = {weight for weights, _ in net.learning_rates() for weight in weights}
    assert {weight for weight in net.parameters() if weight.grad is not None} <= learnt
    assert not any(weight.requires_grad for weight in net.backbone.features.parameters())


def test_vgg16_and_whole_weights_survive_a_new_start(tmp_path: Path) -> None:
    vgg = make_layers(cfgs["D"], batch_norm=False)
    save_file(vgg.state_dict(prefix="features."), tmp_path / "vgg.safetensors")
    net = Ssd300(2, 300, freeze=False)
    net.load_pretrained(read_weights(str(tmp_path / "vgg.safetensors")))
    net.initialise(5)
    assert torch.equal(net.backbone.features[0].weight, vgg[0].weight)
    assert torch.equal(net.backbone.extra[0][5].weight, vgg[28].weight)
    torch.save(net.state_dict(), tmp_path / "whole.pth")
    whole = Ssd300(2, 300, freeze=False)
    whole.load_pretrained(read_weights(str(tmp_path / "whole.pth")))
    whole.initialise(9)
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in whole.state_dict().items())


def test_weights_of_another_network_are_refused_by_their_first_wrong_name(net: Ssd300) -> None:
    weights = dict(net.state_dict())
    weights["head.classification_head.module_list.0.weight"] = torch.zeros(16, 512, 3, 3)
    with pytest.raises(InvalidInput, match=r"classification_head.module_list.0.weight.*is \[16"):
        net.load_pretrained(weights)
    with pytest.raises(InvalidInput, match=r"have no 'features.0.weight'"):
        net.load_pretrained({"conv1.weight": torch.zeros(1)})

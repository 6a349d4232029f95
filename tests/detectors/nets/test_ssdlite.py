"""The network: its weights, its anchors, what freezing means."""

import pytest
import timm
import torch
from torch import Tensor

from mgral_service.detectors.net import Targets
from mgral_service.detectors.nets import ssdlite
from mgral_service.detectors.nets.ssdlite import (
    BACKBONE,
    SsdLite,
    imagenet_weights,
    load_backbone,
)
from mgral_service.domain.errors import InvalidInput


@pytest.fixture(scope="module")
def net() -> SsdLite:
    return SsdLite(3, 96, freeze=True)


def test_folding_the_norms_changes_nothing_that_comes_out() -> None:
    whole = timm.create_model(BACKBONE, pretrained=False)  # it names tensors in the same order
    whole.load_state_dict(dict(zip(whole.state_dict(), imagenet_weights().values(), strict=True)))
    plain = timm.create_model(
        BACKBONE, pretrained=False, features_only=True, out_indices=(2, 3, 4)
    ).eval()
    plain.load_state_dict(whole.state_dict(), strict=False)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(load_backbone()(images), plain(images), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_the_order_of_the_packages_tensors_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = load_backbone().state_dict()
    reversed_weights = dict(reversed(imagenet_weights().items()))
    monkeypatch.setattr(ssdlite, "imagenet_weights", lambda: reversed_weights)
    assert all(torch.equal(expected[k], v) for k, v in load_backbone().state_dict().items())


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (None, r"model: have no 'blocks\.1\.0\.conv_pw\.weight'"),
        (torch.zeros(7), r"conv_pw\.weight' is \[7\] there, \[96, 16, 1, 1\] here"),
    ],
)
def test_weights_of_other_names_or_shapes_are_refused(
    tensor: Tensor | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = imagenet_weights()
    del weights["_blocks.1._expand_conv.weight"]
    if tensor is not None:
        weights["_blocks.1._expand_conv.weight"] = tensor
    monkeypatch.setattr(ssdlite, "imagenet_weights", lambda: weights)
    with pytest.raises(InvalidInput, match=message):
        load_backbone()


@pytest.mark.parametrize("size", [64, 96, 160])
def test_shapes_and_mirrored_anchors(size: int) -> None:
    net = SsdLite(3, size, freeze=True)
    raw = net(torch.rand(2, 3, size, size))
    anchors = len(net.anchors)
    assert raw.logits.shape == (2, anchors, 4)
    assert raw.deltas.shape == (2, anchors, 4)
    assert raw.pooled.shape == (2, net.embedding)
    flipped = net.anchors[:, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1])
    flipped[:, [0, 2]] += size
    torch.testing.assert_close(net.anchors[net.mirror], flipped, atol=1e-3, rtol=0)
    assert torch.equal(net.mirror[net.mirror], torch.arange(anchors))
    assert sum(net.levels) == anchors


def test_the_seed_alone_decides_the_initial_weights(net: SsdLite) -> None:
    net.initialise(4)
    first = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(1.0)
    torch.manual_seed(99)
    net.initialise(4)
    assert all(torch.equal(first[name], value) for name, value in net.state_dict().items())
    net.initialise(5)
    assert not torch.equal(first["pyramid.lateral.0.0.weight"], net.pyramid.lateral[0][0].weight)  # type: ignore[index]


def test_a_frozen_backbone_gets_no_gradient_and_a_free_one_does() -> None:
    targets = Targets(torch.tensor([[[8.0, 8, 40, 40]]]), torch.tensor([[1]]))
    for freeze in (True, False):
        net = SsdLite(3, 64, freeze)
        net.train()
        net.supervised_loss(net(torch.rand(1, 3, 64, 64)), targets).backward()  # type: ignore[no-untyped-call]
        reached = [weight.grad is not None for weight in net.backbone.parameters()]
        assert not any(reached) if freeze else all(reached)
        assert all(weight.grad is not None for weight in net.head.parameters())


def test_zero_deltas_decode_to_the_anchors_inside_the_image(net: SsdLite) -> None:
    raw = net(torch.rand(1, 3, 96, 96))
    boxes, probs = net.decode(type(raw)(raw.logits, torch.zeros_like(raw.deltas), raw.pooled))
    torch.testing.assert_close(boxes[0], net.anchors.clamp(0, 96))
    torch.testing.assert_close(probs.sum(-1), torch.ones(1, len(net.anchors)))


def test_features_of_the_images_give_the_prediction_of_the_images(net: SsdLite) -> None:
    images = torch.rand(2, 3, 96, 96)
    features = net.features(images)
    assert [tuple(level.shape) for level in features] == [
        (2, 40, 12, 12), (2, 112, 6, 6), (2, 320, 3, 3),
    ]  # fmt: skip
    assert torch.equal(net(features).logits, net(images).logits)


def test_a_free_backbone_learns_whole_at_a_twentieth_of_the_rate() -> None:
    for freeze, shares in ((True, [1.0]), (False, [1.0, 0.05])):
        net = SsdLite(3, 64, freeze)
        groups = net.learning_rates()
        assert [share for _, share in groups] == shares
        learnt = {id(weight) for weights, _ in groups for weight in weights}
        assert learnt == {id(weight) for weight in net.parameters() if weight.requires_grad}


def test_other_initial_weights_are_refused(net: SsdLite) -> None:
    with pytest.raises(InvalidInput, match="leave it out"):
        net.load_pretrained({})

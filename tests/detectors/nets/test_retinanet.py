"""The network: its losses against torchvision's, its weights, what freezing means."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import detection

from mgral_service.detectors.focal import BACKGROUND, BETWEEN, assign, focal_losses
from mgral_service.detectors.net import Targets
from mgral_service.detectors.nets.retinanet import RetinaNet
from mgral_service.detectors.predict import LOOSE, predict
from mgral_service.detectors.weights import read_weights
from mgral_service.domain.errors import InvalidInput
from tests.detectors.tiny import CLASSES, SIDE, squares

SIZE = 64


@pytest.fixture(scope="module")
def net() -> RetinaNet:
    return RetinaNet(len(CLASSES), SIZE, freeze=True)


def random_targets(seed: int) -> Targets:
    """Four images of side 64, with five, two, no and one object of two classes."""
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(4, 5, 2, generator=draw) * 30
    boxes = torch.cat([low, low + 6 + torch.rand(4, 5, 2, generator=draw) * 28], 2)
    labels = torch.randint(1, 3, (4, 5), generator=draw)
    labels[1, 2:] = labels[2] = labels[3, 1:] = 0
    return Targets(boxes, labels)


def image_by_image(targets: Targets) -> list[dict[str, Tensor]]:
    """As torchvision wants them, with the first class in column 0."""
    return [
        {"boxes": boxes[labels > 0], "labels": labels[labels > 0] - 1}
        for boxes, labels in zip(targets.boxes, targets.labels, strict=True)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_losses_equal_torchvisions_image_by_image(net: RetinaNet, seed: int) -> None:
    backbone = nn.Identity()
    backbone.out_channels = 8  # type: ignore[assignment]
    theirs = detection.RetinaNet(backbone, 2)
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, len(net.anchors), 2, generator=draw)
    deltas = torch.randn(4, len(net.anchors), 4, generator=draw)
    targets = random_targets(seed)
    assert {BACKGROUND, BETWEEN} < set(assign(targets, net.anchors).flatten().tolist())
    expected = theirs.compute_loss(
        image_by_image(targets),
        {"cls_logits": logits, "bbox_regression": deltas},
        [net.anchors] * 4,
    )
    boxes, classes = focal_losses(logits, deltas, targets, net.anchors)
    assert float(boxes) == pytest.approx(float(expected["bbox_regression"]), rel=1e-5)
    assert float(classes) == pytest.approx(float(expected["classification"]), rel=1e-5)


def test_the_whole_network_loses_what_torchvisions_does(net: RetinaNet) -> None:
    theirs = detection.RetinaNet(net.backbone, 2, min_size=SIZE, max_size=SIZE)
    theirs.load_state_dict(net.state_dict())
    images, targets = torch.rand(4, 3, SIZE, SIZE), random_targets(0)
    with torch.no_grad():
        expected = sum(theirs.train()(list(images), image_by_image(targets)).values())
        ours = net.supervised_loss(net(images), targets)
    assert float(ours) == pytest.approx(float(expected), rel=1e-4)


def test_an_object_that_no_anchor_touches_trains_none(net: RetinaNet) -> None:
    beyond = Targets(torch.tensor([[[5000.0, 5000, 5010, 5010]]]), torch.tensor([[1]]))
    assert (assign(beyond, net.anchors) == BACKGROUND).all()


def test_shapes_and_mirrored_anchors(net: RetinaNet) -> None:
    raw = net(torch.rand(2, 3, SIZE, SIZE))
    count = len(net.anchors)
    assert net.levels == (576, 144, 36, 9, 9)
    assert raw.logits.shape == (2, count, 2)
    assert raw.deltas.shape == (2, count, 4)
    assert raw.pooled.shape == (2, net.embedding) == (2, 256)
    assert torch.equal(net.mirror[net.mirror], torch.arange(count))
    there = net.anchors[net.mirror]
    torch.testing.assert_close(there[:, [1, 3]], net.anchors[:, [1, 3]])
    torch.testing.assert_close(
        there[:576, 0] + net.anchors[:576, 2], torch.full((576,), SIZE - 8.0)
    )


def test_zero_offsets_decode_to_the_anchors_inside_the_image(net: RetinaNet) -> None:
    raw = net(torch.rand(1, 3, SIZE, SIZE))
    boxes, probs = net.decode(type(raw)(raw.logits, torch.zeros_like(raw.deltas), raw.pooled))
    torch.testing.assert_close(boxes[0], net.anchors.clamp(0, SIZE))
    torch.testing.assert_close(probs[..., 0], 1 - probs[..., 1:].amax(-1))


def test_at_the_start_each_class_has_a_probability_of_one_in_a_hundred(net: RetinaNet) -> None:
    with torch.no_grad():
        probs = net(torch.zeros(1, 3, SIZE, SIZE)).logits.sigmoid()
    assert float(probs.mean()) == pytest.approx(0.01, rel=0.2)


def test_the_seed_alone_decides_the_initial_weights_but_for_a_frozen_body(net: RetinaNet) -> None:
    net.initialise(4)
    first = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(1.0)
    torch.manual_seed(99)
    net.initialise(4)
    assert all(torch.equal(first[name], value) for name, value in net.state_dict().items())
    net.initialise(5)
    changed = {
        name for name, value in net.state_dict().items() if not torch.equal(first[name], value)
    }
    assert not any(name.startswith("backbone.body.") for name in changed)
    assert "backbone.fpn.extra_blocks.p6.weight" in changed
    assert "head.classification_head.conv.0.0.weight" in changed


def test_a_frozen_body_gets_no_gradient_and_a_free_one_beyond_its_first_stage() -> None:
    targets = Targets(torch.tensor([[[8.0, 8, 40, 40]]]), torch.tensor([[1]]))
    for freeze in (True, False):
        net = RetinaNet(2, SIZE, freeze)
        net.train()
        net.supervised_loss(net(torch.rand(1, 3, SIZE, SIZE)), targets).backward()  # type: ignore[no-untyped-call]
        reached = {name for name, weight in net.named_parameters() if weight.grad is not None}
        stages = {name.split(".")[2] for name in reached if name.startswith("backbone.body.")}
        assert stages == (set() if freeze else {"layer2", "layer3", "layer4"})
        ((learnt, share),) = net.learning_rates()
        assert share == 1.0
        assert {id(weight) for weight in learnt} == {
            id(weight) for name, weight in net.named_parameters() if name in reached
        }


def test_weights_of_a_whole_network_come_back_from_a_file(tmp_path: Path) -> None:
    net = RetinaNet(2, SIZE, freeze=True)
    net.initialise(7)
    given = {name: value.clone() for name, value in net.state_dict().items()}
    save_file(given, tmp_path / "whole.safetensors")
    net.initialise(0)
    net.load_pretrained(read_weights(str(tmp_path / "whole.safetensors")))
    net.initialise(3)
    assert all(torch.equal(given[name], value) for name, value in net.state_dict().items())


def test_weights_of_resnet_alone_leave_the_rest_to_the_seed(net: RetinaNet) -> None:
    body = {k: torch.randn(v.shape) for k, v in net.backbone.body.state_dict().items()}
    other = RetinaNet(2, SIZE, freeze=False)
    other.load_pretrained({**body, "fc.weight": torch.zeros(1000, 2048)})
    other.initialise(1)
    net.initialise(1)
    assert all(torch.equal(body[k], v) for k, v in other.backbone.body.state_dict().items())
    assert torch.equal(
        other.backbone.fpn.extra_blocks.p6.weight, net.backbone.fpn.extra_blocks.p6.weight
    )


def test_the_first_wrong_name_is_told(net: RetinaNet) -> None:
    weights = net.state_dict()
    key = "head.classification_head.cls_logits.weight"
    with pytest.raises(InvalidInput, match=rf"'{key}' is \[18, 256, 3, 3\] there, \[27"):
        RetinaNet(3, SIZE, freeze=True).load_pretrained(weights)
    body = net.backbone.body.state_dict()
    del body["layer1.0.conv2.weight"], body["layer3.0.conv1.weight"]
    with pytest.raises(InvalidInput, match=r"have no 'layer1\.0\.conv2\.weight'"):
        net.load_pretrained(body)


def test_it_predicts_images_with_an_embedding_of_256(net: RetinaNet) -> None:
    assert SIDE == SIZE
    images, _ = squares(3)
    net.initialise(0)
    predictions = predict(net.eval(), images, images.ids, LOOSE)
    assert predictions.embeddings.shape == (3, 256)
    assert predictions.detections.probs.shape[1] == 3

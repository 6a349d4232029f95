"""Winograd's convolutions against direct ones in double precision, and ssd300 with them."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mgral_service.detectors import local, winograd
from mgral_service.detectors.batches import Batch
from mgral_service.detectors.fit import fit
from mgral_service.detectors.net import Targets
from mgral_service.detectors.nets.ssd300 import Ssd300
from mgral_service.detectors.winograd import Conv3x3, kernel, speed_up, tile_of
from mgral_service.domain.specs import DetectorAdvanced, DetectorSpec

TARGETS = Targets(torch.tensor([[[20.0, 30, 120, 200]]]), torch.tensor([[2]]))


@pytest.fixture(scope="module")
def compiled() -> None:
    try:
        winograd.load()
    except (winograd.NoKernel, OSError) as reason:
        pytest.skip(f"the kernel cannot be had here: {reason}")


@pytest.fixture(scope="module")
def nets(compiled: None) -> tuple[Ssd300, Ssd300]:
    """The same weights: direct, and by Winograd's algorithm."""
    both = Ssd300(2, 300, freeze=False), Ssd300(2, 300, freeze=False)
    speed_up(both[1])
    direct, fast = (net.to(memory_format=torch.channels_last) for net in both)
    return direct, fast


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def image(count: int = 1) -> Tensor:
    return torch.rand(count, 3, 300, 300, generator=torch.Generator().manual_seed(0))


def layer_of(channels: int, out: int, dilation: int = 1, rectified: bool = False) -> nn.Module:
    layer = nn.Conv2d(channels, out, 3, padding=dilation, dilation=dilation)
    with torch.no_grad():
        draw = torch.Generator().manual_seed(1)
        layer.weight.normal_(0, (2 / (9 * channels)) ** 0.5, generator=draw)
        assert layer.bias is not None
        layer.bias.normal_(0, 0.1, generator=draw)
    net = nn.Sequential(layer, nn.ReLU()) if rectified else nn.Sequential(layer)
    speed_up(net)
    return net


def off(ours: Tensor, exact: Tensor) -> float:
    return float((ours - exact).detach().abs().max() / exact.detach().abs().max())


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize(
    ("images", "channels", "out", "height", "width", "dilation", "tile"),
    [
        (2, 16, 24, 19, 19, 1, 4),
        (1, 24, 16, 19, 19, 6, 4),
        (1, 8, 16, 38, 38, 1, 6),
        (1, 64, 64, 75, 75, 1, 6),
        (2, 3, 21, 13, 19, 1, 4),
    ],
)
def test_outputs_and_gradients_are_the_direct_ones(
    compiled: None,
    images: int,
    channels: int,
    out: int,
    height: int,
    width: int,
    dilation: int,
    tile: int,
    rectified: bool,
) -> None:
    assert tile_of(height, width, dilation) == tile
    draw = torch.Generator().manual_seed(2)
    x = torch.randn(images, channels, height, width, generator=draw).requires_grad_()
    dy = torch.randn(images, out, height, width, generator=draw)
    layer = layer_of(channels, out, dilation, rectified)
    y = layer(x)
    weights = list(layer.parameters())
    ours = torch.autograd.grad(y, (x, *weights), dy)

    exact = [part.detach().double().requires_grad_() for part in (x, *weights)]
    wanted = F.conv2d(exact[0], exact[1], exact[2], padding=dilation, dilation=dilation)
    through = dy.double() * (y > 0) if rectified else dy.double()
    gradients = torch.autograd.grad(wanted, exact, through)
    assert off(y, wanted.relu() if rectified else wanted) < 1e-4
    assert [off(a, b) < 1e-4 for a, b in zip(ours, gradients, strict=True)] == [True] * 3


def test_results_do_not_depend_on_threads(compiled: None, two_threads: None) -> None:
    layer, results = layer_of(64, 64, rectified=True), []
    x = torch.randn(2, 64, 75, 75, generator=torch.Generator().manual_seed(3)).requires_grad_()
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        y = layer(x)
        results.append((y, *torch.autograd.grad(y, (x, *layer.parameters()), torch.ones_like(y))))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_a_tile_is_the_one_with_fewer_products() -> None:
    # 12 x 12: 2 x 2 tiles of 64 products, or 3 x 3 of 36, against 9 * 144
    assert tile_of(12, 12, 1) == 6
    # 8 x 8: 2 x 2 tiles of 64 or of 36
    assert tile_of(8, 8, 1) == 4
    # 5 x 5: too small; 9 x 9 by 6: phases of two pixels, 36 products for 4
    assert tile_of(5, 5, 1) == tile_of(9, 9, 6) == 0


def test_ssd300_sees_the_same_with_it(nets: tuple[Ssd300, Ssd300]) -> None:
    with torch.no_grad():
        direct, fast = (net.eval()(image()) for net in nets)
    assert sum(isinstance(module, Conv3x3) for module in nets[1].modules()) == 26
    torch.testing.assert_close(fast.logits, direct.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(fast.deltas, direct.deltas, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(fast.pooled, direct.pooled, rtol=1e-3, atol=1e-3)


def test_weights_keep_their_names_and_seeds(nets: tuple[Ssd300, Ssd300]) -> None:
    direct, fast = (copy.deepcopy(net) for net in nets)
    for net in (direct, fast):
        net.load_pretrained(nets[0].state_dict())
        net.initialise(3)
    ours, theirs = fast.state_dict(), direct.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_step_of_training_loses_the_same(nets: tuple[Ssd300, Ssd300]) -> None:
    losses: list[float] = []
    for net in copy.deepcopy(nets):
        net.initialise(0)
        for _ in range(2):  # the second loss is that of stepped weights
            step = iter([Batch(image(), TARGETS)])
            fit(
                net,
                step,
                DetectorSpec(steps=1, learning_rate=1e-5),
                lambda _, loss: losses.append(loss),
            )
    assert losses[1] != losses[0]
    assert losses[2:] == pytest.approx(losses[:2], rel=1e-3)


def test_an_input_that_wants_no_gradient_gets_none(compiled: None) -> None:
    layer = layer_of(16, 24, rectified=True)
    x = torch.randn(1, 16, 19, 19, generator=torch.Generator().manual_seed(4))
    layer(x).sum().backward()
    assert x.grad is None
    assert all(weight.grad is not None for weight in layer.parameters())
    with torch.no_grad():
        assert not layer(x).requires_grad


def test_bf16_stays_direct(compiled: None) -> None:
    layer = layer_of(16, 16)
    x = torch.randn(1, 16, 19, 19, generator=torch.Generator().manual_seed(4))
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16


@pytest.mark.parametrize(("precision", "expected"), [("auto", True), ("fp32", False)])
def test_precision_decides(
    compiled: None,
    monkeypatch: pytest.MonkeyPatch,
    precision: Literal["auto", "fp32"],
    expected: bool,
) -> None:
    net = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1))
    net.winograd = True  # type: ignore[assignment]
    entry = SimpleNamespace(build=lambda classes, size, freeze: net)
    monkeypatch.setattr(local, "DETECTORS", {"ssd300": entry})
    monkeypatch.setattr(local, "computes_in_bf16", lambda device: False)
    spec = DetectorSpec("ssd300", 300, advanced=DetectorAdvanced(precision=precision))
    built = local.build(spec, ("cell",), torch.device("cpu"))
    assert any(isinstance(module, Conv3x3) for module in built.modules()) is expected


def test_without_a_compiler_layers_stay_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr("shutil.which", lambda name: None)
    caplog.set_level(logging.INFO, winograd.__name__)
    kernel.cache_clear()
    try:
        assert type(layer_of(8, 8).get_submodule("0")) is nn.Conv2d
    finally:
        kernel.cache_clear()
    assert "convolutions stay direct" in caplog.text
    assert "there is no g++" in caplog.text

"""3x3 convolutions in fp32 on a processor by Winograd's algorithm: a quarter of the products.

The kernel, winograd.cpp, is compiled where it is first needed and kept beside torch's weights. If
it cannot be, convolutions stay direct.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import tempfile
from ctypes import CDLL, c_bool, c_int, c_int64, c_void_p
from functools import cache
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

SOURCE = Path(__file__).with_name("winograd.cpp")
FLAGS = ("-O3", "-mavx2", "-mfma", "-fopenmp", "-shared", "-fPIC", "-std=c++17")
LANES = 8  # channels come in multiples of it
LEAST_SIDE = 8  # of a map: on smaller ones, transforming the filters costs more than is saved
LEAST_SAVED = 0.5  # of the products
SHAPE = [c_int, *[c_int64] * 6]  # tile, images, height, width, dilation, channels in and out
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
logger = logging.getLogger(__name__)


class NoKernel(Exception):
    """Why the kernel cannot run here."""


def speed_up(net: nn.Module) -> None:
    """Let the 3x3 convolutions of `net` compute by Winograd's algorithm, if that can be done here.

    Weights and their names stay; a ReLU that follows in a Sequential is taken in.
    """
    if kernel() is None:
        return
    keep_memory()
    for parent in list(net.modules()):
        children = [*parent.named_children(), ("", None)]
        for (_, child), (name, following) in pairwise(children):
            if type(child) is nn.Conv2d and _fits(child):
                child.__class__ = Conv3x3
                if isinstance(parent, nn.Sequential) and type(following) is nn.ReLU:
                    child.rectified = True  # type: ignore[assignment]
                    setattr(parent, name, nn.Identity())


@cache
def kernel() -> CDLL | None:
    """The compiled kernel, or None where it cannot be had: the log says why."""
    try:
        return load()
    except (NoKernel, OSError) as reason:
        logger.info("convolutions stay direct, without Winograd's algorithm: %s", reason)
        return None


def load() -> CDLL:
    """Compiled unless it was before. NoKernel, or OSError, says what is missing."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        raise NoKernel("the processor has no AVX2")
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        raise NoKernel("this torch is built without MKL")
    key = hashlib.sha256(SOURCE.read_bytes() + repr((FLAGS, torch.__version__)).encode())
    file = Path(torch.hub.get_dir()) / "mgral" / f"winograd-{key.hexdigest()[:16]}.so"
    if not file.exists():
        compile_to(file)
    library = CDLL(str(file))
    library.winograd_forward.argtypes = [*SHAPE, *[c_void_p] * 3, c_bool, c_void_p, c_int]
    library.winograd_backward.argtypes = [*SHAPE, *[c_void_p] * 7, c_int]
    library.winograd_forward.restype = library.winograd_backward.restype = c_bool
    return library


def compile_to(file: Path) -> None:
    """Processes that do it at once each move a whole library into place."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise NoKernel("there is no g++")
    libraries = Path(torch.__file__).parent / "lib"
    linked = [*libraries.glob("libgomp*"), libraries / "libtorch_cpu.so"]  # one pool of threads
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        made = Path(folder) / file.name
        ran = subprocess.run(
            [compiler, *FLAGS, SOURCE, "-o", made, *linked, "-Wl,--as-needed"],
            capture_output=True,
            text=True,
        )
        if ran.returncode:
            raise NoKernel(f"g++ cannot compile it: {ran.stderr.strip()}")
        made.replace(file)


def keep_memory() -> None:
    """Have glibc keep what this process frees: fresh pages were a quarter of a training step."""
    mallopt = getattr(CDLL(None), "mallopt", None)  # glibc's alone
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)


def _fits(layer: nn.Conv2d) -> bool:
    return (
        layer.kernel_size == (3, 3)
        and layer.stride == (1, 1)
        and layer.dilation[0] == layer.dilation[1]
        and layer.padding == layer.dilation
        and layer.groups == 1
        and layer.padding_mode == "zeros"
    )


class Conv3x3(nn.Conv2d):
    """`rectified`: a ReLU follows."""

    rectified = False

    def forward(self, input: Tensor) -> Tensor:
        tile = tile_of(input.shape[2], input.shape[3], self.dilation[0])
        plain = input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32
        if not (tile and plain) or torch.is_autocast_enabled("cpu") or kernel() is None:
            direct = super().forward(input)
            return direct.relu_() if self.rectified else direct
        weight, bias = self.weight, self.bias
        over = -self.in_channels % LANES, -self.out_channels % LANES
        if any(over):
            input = F.pad(input, (0, 0, 0, 0, 0, over[0]))
            weight = F.pad(weight, (0, 0, 0, 0, 0, over[0], 0, over[1]))
            bias = None if bias is None else F.pad(bias, (0, over[1]))
        out: Tensor = _Winograd.apply(input, weight, bias, self.dilation[0], self.rectified, tile)
        return out[:, : self.out_channels] if over[1] else out


def tile_of(height: int, width: int, dilation: int) -> int:
    """Side of the output's tiles, 4 or 6, that takes fewer products; 0 where few are saved."""
    if min(height, width) < LEAST_SIDE:
        return 0

    def products(side: int) -> int:
        down, right = (ceil(ceil(length / dilation) / side) for length in (height, width))
        return (side + 2) ** 2 * dilation**2 * down * right

    best = min((4, 6), key=products)
    return best if products(best) < LEAST_SAVED * 9 * height * width else 0


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        dilation: int,
        rectified: bool,
        tile: int,
    ) -> Tensor:
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
        images, channels, height, width = x.shape
        ctx.shape = tile, images, height, width, dilation, channels, len(weight)
        y = torch.empty(images, len(weight), height, width, memory_format=torch.channels_last)
        _run("winograd_forward", *ctx.shape, x, weight, bias, rectified, y)
        ctx.save_for_backward(x, weight, y if rectified else None)
        ctx.biased = bias is not None
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dweight, dbias = torch.empty_like(weight), weight.new_empty(len(weight))
        _run("winograd_backward", *ctx.shape, x, weight, y, dy, dx, dweight, dbias)
        return dx, dweight, dbias if ctx.biased else None, None, None, None


def _run(name: str, *arguments: Tensor | int | None) -> None:
    library = kernel()
    assert library is not None
    plain = [value.data_ptr() if isinstance(value, Tensor) else value for value in arguments]
    if not getattr(library, name)(*plain, torch.get_num_threads()):
        raise MemoryError("no memory for the transforms of a convolution: take smaller batches")

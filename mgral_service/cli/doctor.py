"""`mgral doctor`: what this machine lacks to run the service, and what to do about it."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from mgral_service.app import service, wiring
from mgral_service.app.settings import Settings
from mgral_service.domain.errors import MgralError

FREE_BYTES = 2 * 2**30
State = Literal["ok", "warning", "failed"]
Result = tuple[State, str]


@dataclass(frozen=True, slots=True)
class Check:
    """detail: the finding or, unless it is ok, what to do."""

    name: str
    state: State
    detail: str


def checks(settings: Settings) -> list[Check]:
    """All checks, in order; an error in a check is a failed check."""
    tests: dict[str, Callable[[Settings], Result]] = {
        "home": _home,
        "store": _store,
        "ray": _ray,
        "gpu": _gpu,
        "images": _images,
        "service": _service,
        "token": _token,
    }
    results = []
    for name, test in tests.items():
        try:
            state, detail = test(settings)
        except (MgralError, OSError, RuntimeError) as error:
            state, detail = "failed", str(error)
        results.append(Check(name, state, detail))
    return results


def _home(settings: Settings) -> Result:
    settings.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=settings.home) as probe:
        probe.write(b"x")
    free = shutil.disk_usage(settings.home).free
    if free < FREE_BYTES:
        return "warning", f"{free / 2**30:.1f} GiB free in {settings.home}: clear it"
    return "ok", f"{settings.home} is writable, {free / 2**30:.0f} GiB free"


def _store(settings: Settings) -> Result:
    if settings.redis_url is None and service.running(settings.home) is not None:
        return "ok", "embedded, held by the running service"
    with wiring.with_store(settings) as reachable:
        wiring.stores(reachable, 2.0).cycles.page(None, 1)
    if settings.redis_url is None:
        return "ok", "embedded Valkey starts; set MGRAL_REDIS_URL for a shared one"
    return "ok", "the server at MGRAL_REDIS_URL answers"


def _ray(settings: Settings) -> Result:
    import ray

    if os.environ.get("RAY_AUTH_MODE") == "token":
        return "ok", f"Ray {ray.__version__} with token authentication"
    advice = "`mgral up` sets RAY_AUTH_MODE=token: set it for a cluster that you start yourself"
    return "warning", f"Ray {ray.__version__}; {advice}"


def _gpu(settings: Settings) -> Result:
    if find_spec("torch") is None:
        return "warning", "no torch here: drivers and proxies need the extra [craft]"
    import torch

    if torch.cuda.is_available():
        return "ok", torch.cuda.get_device_name(0)
    return "warning", "none seen by torch: training runs on the CPU, slowly"


def _images(settings: Settings) -> Result:
    from PIL import Image

    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (200, 10, 10)).save(buffer, kind)
        with Image.open(io.BytesIO(buffer.getvalue())) as picture:
            picture.load()
    return "ok", "JPEG, PNG, WEBP, BMP and TIFF decode"


def _service(settings: Settings) -> Result:
    if service.ready(settings.url):
        return "ok", f"answers at {settings.url}"
    return "warning", f"none at {settings.url}: start it with `mgral up`, or set MGRAL_URL"


def _token(settings: Settings) -> Result:
    if settings.token is not None:
        return "ok", "MGRAL_TOKEN is set"
    if settings.loopback:
        return "ok", "none needed on loopback; required beyond it"
    return "failed", f"set MGRAL_TOKEN before listening on {settings.host}"

"""`mgral doctor`: what a machine lacks to run the service, and what to do about it."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from mgral_service import wiring
from mgral_service.domain.errors import MgralError
from mgral_service.settings import Settings

FREE_BYTES = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Check:
    """`detail` says what was seen or, unless it is ok, what to do."""

    name: str
    state: Literal["ok", "warning", "failed"]
    detail: str


def checks(settings: Settings) -> list[Check]:
    """All checks, in order; one that raises is a failed check, never an error."""
    tests: dict[str, Callable[[Settings], Check]] = {
        "home": _home,
        "store": _store,
        "ray": _ray,
        "gpu": _gpu,
        "images": _images,
        "service": _service,
        "token": _token,
    }
    found = []
    for name, test in tests.items():
        try:
            found.append(test(settings))
        except (MgralError, OSError, RuntimeError) as error:
            found.append(Check(name, "failed", str(error)))
    return found


def _home(settings: Settings) -> Check:
    settings.home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=settings.home) as probe:
        probe.write(b"x")
    free = shutil.disk_usage(settings.home).free
    if free < FREE_BYTES:
        return Check("home", "warning", f"{free / 2**30:.1f} GiB free in {settings.home}: clear it")
    return Check("home", "ok", f"{settings.home} is writable, {free / 2**30:.0f} GiB free")


def _store(settings: Settings) -> Check:
    from mgral_service import service

    if settings.redis_url is None and service.running(settings.home) is not None:
        return Check("store", "ok", "embedded, held by the running service")
    with wiring.with_store(settings) as reachable:
        wiring.stores(reachable, 2.0).cycles.page(None, 1)
    if settings.redis_url is None:
        return Check("store", "ok", "embedded Valkey starts; set MGRAL_REDIS_URL for a shared one")
    return Check("store", "ok", "the server at MGRAL_REDIS_URL answers")


def _ray(settings: Settings) -> Check:
    import ray

    if os.environ.get("RAY_AUTH_MODE") == "token":
        return Check("ray", "ok", f"Ray {ray.__version__} with token authentication")
    return Check(
        "ray",
        "warning",
        f"Ray {ray.__version__}; `mgral up` sets RAY_AUTH_MODE=token for its own cluster: "
        "set it for one that you start yourself",
    )


def _gpu(settings: Settings) -> Check:
    if find_spec("torch") is None:
        return Check("gpu", "warning", "no torch here: drivers and proxies need the extra [craft]")
    import torch

    if torch.cuda.is_available():
        return Check("gpu", "ok", torch.cuda.get_device_name(0))
    return Check("gpu", "warning", "none seen by torch: training runs on the CPU, slowly")


def _images(settings: Settings) -> Check:
    from PIL import Image

    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (200, 10, 10)).save(buffer, kind)
        with Image.open(io.BytesIO(buffer.getvalue())) as picture:
            picture.load()
    return Check("images", "ok", "JPEG, PNG, WEBP, BMP and TIFF decode")


def _service(settings: Settings) -> Check:
    from mgral_service.client import Client

    token = settings.token.get_secret_value() if settings.token else None
    with Client(settings.url, token) as client:
        if client.ready():
            return Check("service", "ok", f"answers at {settings.url}")
    detail = f"none at {settings.url}: start it with `mgral up`, or set MGRAL_URL"
    return Check("service", "warning", detail)


def _token(settings: Settings) -> Check:
    if settings.token is not None:
        return Check("token", "ok", "MGRAL_TOKEN is set")
    if settings.loopback:
        return Check("token", "ok", "none needed on loopback; required beyond it")
    return Check("token", "failed", f"set MGRAL_TOKEN before listening on {settings.host}")

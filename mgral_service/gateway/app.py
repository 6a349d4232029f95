"""The HTTP service: its routes, and what all of them share."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer

import mgral_service
from mgral_service.domain.errors import Unavailable
from mgral_service.gateway import events, openapi, problems
from mgral_service.gateway.cycles import cycle_routes
from mgral_service.gateway.datasets import dataset_routes
from mgral_service.gateway.openapi import problems_of
from mgral_service.gateway.ports import GatewayPorts
from mgral_service.gateway.requests import Guard
from mgral_service.gateway.schemas import HealthOut
from mgral_service.gateway.selections import selection_routes

__all__ = ["GatewayPorts", "create_app"]


def create_app(ports: GatewayPorts) -> FastAPI:
    """The ASGI app over its ports."""
    app = FastAPI(
        title="mgral",
        summary="Active learning for object detection as a service",
        version=mgral_service.__version__,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    problems.install(app)
    app.include_router(_health_routes(ports))
    guards = [Depends(Guard(ports.token))]
    if ports.token is not None:
        guards.append(Depends(HTTPBearer(auto_error=False)))  # for the document
    for routes in (dataset_routes, cycle_routes, events.event_routes, selection_routes):
        app.include_router(routes(ports), dependencies=guards)
    openapi.complete(app)
    return app


def _health_routes(ports: GatewayPorts) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/livez", responses=problems_of())
    async def livez() -> HealthOut:
        """The process answers."""
        return HealthOut(status="alive")

    @router.get("/readyz", responses=problems_of(503))
    def readyz() -> HealthOut:
        """What requests need answers too; a 503 names what does not."""
        checks = {"store": lambda: ports.stores.cycles.page(None, 1), **ports.checks}
        failing = [name for name, check in checks.items() if not _passes(check)]
        if failing:
            raise Unavailable(", ".join(failing), "not ready")
        return HealthOut(status="ready")

    return router


def _passes(check: Callable[[], object]) -> bool:
    try:
        check()
    except Exception:  # whatever it is, it is not ready
        return False
    return True

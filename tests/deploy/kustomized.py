"""What `kubectl apply -k` would apply: an overlay's objects, with what its kustomization changes in them.

It knows the fields that our kustomizations use, and refuses any other.
"""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BASE = DEPLOY / "k8s" / "base"
OVERLAYS = DEPLOY / "k8s" / "overlays"
KNOWN = {"apiVersion", "kind", "namespace", "resources", "images", "patches"}

Manifest = dict[str, Any]


def objects(folder: Path) -> list[Manifest]:
    """The objects of the kustomization in that folder, in its order."""
    said = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert not said.keys() - KNOWN, f"{folder.name} uses what is not known here: {said.keys() - KNOWN}"
    found = [each for name in said["resources"] for each in _resource(folder / name)]
    for each in found:
        if "namespace" in said:
            each["metadata"]["namespace"] = said["namespace"]
        for container in _containers(each):
            for image in said.get("images", []):
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
    for patch in said.get("patches", []):
        chosen = [each for each in found if _is_target(each, patch["target"])]
        assert chosen, f"{folder.name} patches what is not there: {patch['target']}"
        for each in chosen:
            for operation in yaml.safe_load(patch["patch"]):
                _patched(each, **operation)
    return found


def of_kind(found: list[Manifest], kind: str) -> dict[str, Manifest]:
    """Objects of one kind by name."""
    return {each["metadata"]["name"]: each for each in found if each["kind"] == kind}


def pod_of(workload: Manifest) -> Manifest:
    """The pod that a Deployment or Job makes, or the Pod itself."""
    pod: Manifest = workload["spec"] if workload["kind"] == "Pod" else workload["spec"]["template"]["spec"]
    return pod


def _resource(path: Path) -> list[Manifest]:
    if path.is_dir():
        return objects(path)
    return [copy.deepcopy(each) for each in yaml.safe_load_all(path.read_text())]


def _containers(each: Manifest) -> Iterator[Manifest]:
    if each["kind"] in {"Deployment", "Job", "Pod"}:
        yield from pod_of(each)["containers"]


def _is_target(each: Manifest, target: Manifest) -> bool:
    assert not target.keys() - {"kind", "name"}
    return each["kind"] == target["kind"] and target.get("name") in {None, each["metadata"]["name"]}


def _patched(each: Manifest, op: str, path: str, value: Any) -> None:
    assert op == "replace", op
    *way, last = path.removeprefix("/").split("/")
    at: Any = each
    for step in way:
        at = at[step]
    assert last in at, f"{each['metadata']['name']} has no {path}"
    at[last] = value

"""Starts pods of our manifests as a kubelet would: their user, files and modes, and the environment that they are told.

Where the tests run as root, each pod has its own user, no rights, and a file system that it cannot write. What differs
from a node: volumes are mounted below a folder of the test, so paths in the environment begin there, and
the address to answer on is loopback with a free port.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import httpx

from tests.deploy.kustomized import DEPLOY, Manifest, of_kind, pod_of

READY_SECONDS_MAX = 90.0
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
PYTHON_FOLDER = Path(sys.executable).parent

Secrets = Mapping[str, Mapping[str, bytes]]


_ISOLATED = """
set -e
mount --bind "$NODE" "$NODE"
{uncovered}
for each in / /tmp /var/tmp; do if mountpoint -q "$each"; then mount -o remount,bind,ro "$each"; fi; done
unset NODE
exec setpriv {user} --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"""
"""In mounts of its own: the file system cannot be written except in the pods' folder, and the rights are given up."""


@cache
def isolating() -> bool:
    """Whether a pod can have its own user and a read-only file system here: that takes root, and a kernel that lets it."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which("setpriv") is None:
        return False
    tried = ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(tried, check=False, capture_output=True).returncode == 0


def _uncovered() -> str:
    """Commands that show another user the interpreter and the checkout, where they are below a folder closed to him."""
    lines = []
    places: dict[Path, list[Path]] = {}
    for path in (Path(sys.base_prefix).resolve(), DEPLOY.parent):
        closed = [each for each in reversed(path.parents) if not each.stat().st_mode & 0o001]
        if closed:
            places.setdefault(closed[0], []).append(path)
    for number, (closed_folder, paths) in enumerate(places.items()):
        kept = [(path, f"/run/crm-uncovered-{number}-{at}") for at, path in enumerate(paths)]
        lines.append("mount -t tmpfs none /run")
        lines += [f"mkdir {there}; mount --bind {shlex.quote(str(path))} {there}" for path, there in kept]
        lines.append(f"mount -t tmpfs -o mode=755 none {shlex.quote(str(closed_folder))}")
        lines += [
            f"mkdir -p {shlex.quote(str(path))}; mount --bind {there} {shlex.quote(str(path))}"
            for path, there in kept
        ]
    return "\n".join(lines)


def image_environment() -> dict[str, str]:
    """What the image itself says: the ENV lines of its last stage."""
    last = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")[-1]
    said = " ".join(re.findall(r"^ENV (.+)$", last, re.MULTILINE)).split()
    found = dict(each.split("=", 1) for each in said)
    found["PATH"] = found["PATH"].replace("/opt/crm/bin", str(PYTHON_FOLDER)).replace("$PATH", SYSTEM_PATH)
    return found


def told(container: Manifest, objects: list[Manifest], secrets: Secrets) -> dict[str, str]:
    """The environment of a container, from the image, its config maps and the secrets that it names."""
    maps = of_kind(objects, "ConfigMap")
    found = image_environment()
    for source in container.get("envFrom", []):
        if (reference := source.get("secretRef")) is None:
            found |= maps[source["configMapRef"]["name"]]["data"]
        elif reference["name"] in secrets or not reference.get("optional"):
            found |= {key: content.decode() for key, content in secrets[reference["name"]].items()}
    for variable in container.get("env", []):
        if "value" in variable:
            found[variable["name"]] = variable["value"]
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            if reference.get("optional") and reference["name"] not in secrets:
                continue
            found[variable["name"]] = secrets[reference["name"]][reference["key"]].decode()
    return found


@dataclass(slots=True)
class Pod:
    """One container of a workload, laid out below `root`. `answers_at` is where its port is."""

    name: str
    workload: Manifest
    objects: list[Manifest]
    secrets: Secrets
    root: Path
    answers_at: int
    process: "subprocess.Popen[bytes] | None" = None
    mounts: dict[str, Path] = field(default_factory=dict)

    @property
    def spec(self) -> Manifest:
        return pod_of(self.workload)

    @property
    def container(self) -> Manifest:
        found: Manifest = self.spec["containers"][0]
        return found

    @property
    def log(self) -> str:
        return (self.root / "log").read_text(errors="replace")

    def lay(self) -> None:
        """Makes its volumes."""
        self.root.mkdir(mode=0o755)
        volumes = {each["name"]: each for each in self.spec.get("volumes", [])}
        for mount in self.container.get("volumeMounts", []):
            at = self.root / mount["mountPath"].removeprefix("/")
            at.mkdir(parents=True)
            volume = volumes[mount["name"]]
            if "secret" in volume:
                self._lay_secret(at, volume["secret"])
            else:
                assert "emptyDir" in volume, volume
                at.chmod(0o777)
            self.mounts[mount["mountPath"]] = at

    def _lay_secret(self, at: Path, volume: Manifest) -> None:
        """Files in a folder with a time in its name, `..data` leading to it, and a link for each file."""
        group = self.spec["securityContext"].get("fsGroup")
        real = at / "..2026_11_25_08_00_00.1"
        real.mkdir()
        for key, content in self.secrets[volume["secretName"]].items():
            file = real / key
            file.write_bytes(content)
            file.chmod(volume.get("defaultMode", 0o644) | (0o440 if group is not None else 0))
            if isolating():
                os.chown(file, 0, group or 0)
            (at / key).symlink_to(Path("..data") / key)
        (at / "..data").symlink_to(real.name)

    def environment(self) -> dict[str, str]:
        """What it is told, with the places of the test."""
        found = told(self.container, self.objects, self.secrets)
        found = {name: v if name == "PATH" else self._moved(v) for name, v in found.items()}
        if "/tmp" in self.mounts:  # noqa: S108 - the path of the manifest
            found["TMPDIR"] = str(self.mounts["/tmp"])  # noqa: S108
        return found | {"CRM_HOST": "127.0.0.1", "CRM_PORT": str(self.answers_at)}

    def _moved(self, value: str) -> str:
        """A path of the pod, where it is here."""
        for path, place in self.mounts.items():
            if value == path or value.startswith(f"{path}/"):
                return str(place) + value[len(path) :]
        return value

    def start(self, command: "list[str] | None" = None) -> None:
        environment = self.environment()
        program, *rest = command or self.container["command"]
        path = shutil.which(program, path=environment["PATH"])
        assert path is not None, f"{program} is not in the image's path"
        started = [path, *rest]
        if isolating():
            security = self.spec["securityContext"]
            groups = f"--groups {security['fsGroup']}" if "fsGroup" in security else "--clear-groups"
            user = f"--reuid {security['runAsUser']} --regid {security['runAsGroup']} {groups}"
            script = _ISOLATED.format(uncovered=_uncovered(), user=user)
            started = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", *started]
            environment["NODE"] = str(self.root.parent)
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                started, env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def probed(self, probe: str) -> "httpx.Response | None":
        """The answer to one of its probes; None where nobody answers in the probe's time."""
        said = self.container[probe]
        asked = said["httpGet"]
        ports = {each["name"]: each["containerPort"] for each in self.container["ports"]}
        assert str(ports[asked["port"]]) == told(self.container, self.objects, self.secrets)["CRM_PORT"]
        try:
            return httpx.get(
                f"http://127.0.0.1:{self.answers_at}{asked['path']}", timeout=said.get("timeoutSeconds", 1)
            )
        except httpx.TransportError:
            return None

    def until(self, probe: str, status: int = 200) -> httpx.Response:
        """Waits for that answer of a probe, which a process that has ended cannot give."""
        deadline, last = time.monotonic() + READY_SECONDS_MAX, None
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, f"{self.name} ended: {self.log[-3000:]}"
            last = self.probed(probe)
            if last is not None and last.status_code == status:
                return last
            time.sleep(0.1)
        raise AssertionError(
            f"{self.name}: {last.text if last is not None else 'no answer'}\n{self.log[-3000:]}"
        )

    def ended(self, seconds_max: float) -> int:
        """The exit code of a process that ends by itself or was told to."""
        assert self.process is not None
        try:
            return self.process.wait(seconds_max)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} runs after {seconds_max:.0f} s\n{self.log[-3000:]}") from None

    def terminate(self) -> float:
        """Asks it to end, as a kubelet does; seconds until it was gone."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.ended(self.spec["terminationGracePeriodSeconds"]) == 0, self.log[-3000:]
        return time.monotonic() - began


@contextmanager
def cleared(pods: Mapping[str, Pod]) -> Iterator[None]:
    """Leaves none of these pods running."""
    try:
        yield
    finally:
        for pod in pods.values():
            if pod.process is not None and pod.process.poll() is None:
                pod.process.kill()
                pod.process.wait()

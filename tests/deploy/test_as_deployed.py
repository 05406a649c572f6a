"""Every role of the production overlay starts as a kubelet starts it, does its work, and ends when it is told to."""

import copy
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import yaml
from chassis.clock import SystemClock
from devservers import free_port
from joserfc import jwt
from joserfc.jwk import KeySet, OKPKey

from tests.deploy.kubelet import Pod, Secrets, cleared, isolating, told
from tests.deploy.kustomized import BASE, DEPLOY, OVERLAYS, objects, of_kind, pod_of
from tests.deploy.test_monitoring import WATCHED
from tests.support.aws import endpoint
from tests.support.processes import until

__all__ = ["endpoint"]

DEPLOYMENTS = sorted(of_kind(objects(BASE), "Deployment"))
JOBS = sorted(of_kind(objects(BASE), "Job"))
SHUTDOWN_SECONDS_MAX = 20.0
JOB_SECONDS_MAX = 120.0
ASSETS = [{"product": "fund", "amount": "100.00", "currency": "CNY"}]


@pytest.mark.parametrize("name", JOBS)
def test_a_migrate_job_ends_well(cluster: dict[str, Pod], name: str) -> None:
    assert cluster[name].ended(JOB_SECONDS_MAX) == 0, cluster[name].log[-3000:]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_role_becomes_ready_and_is_live(cluster: dict[str, Pod], name: str) -> None:
    pod = cluster[name]
    pod.until("readinessProbe")
    for probe in ("startupProbe", "livenessProbe"):
        answer = pod.probed(probe)
        assert answer is not None, pod.log[-3000:]
        assert answer.status_code == 200


def test_the_pages_of_metrics_have_what_the_rules_ask_for(cluster: dict[str, Pod]) -> None:
    known = set()
    for name in DEPLOYMENTS:
        page = httpx.get(f"http://127.0.0.1:{cluster[name].answers_at}/metrics", timeout=10).text
        known |= set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    assert {name.removesuffix("_total") for name in WATCHED} <= {
        name.removesuffix("_total") for name in known
    }


def test_the_command_line_runs_in_the_operator_s_pod(
    cluster: dict[str, Pod], secrets: Secrets, node: Path
) -> None:
    found = objects(OVERLAYS / "production")
    workload = next(yaml.safe_load_all((DEPLOY / "k8s" / "operator" / "pod.yaml").read_text()))
    pod = Pod("crm-operator", workload, found, secrets, node / "crm-operator", free_port())
    pod.lay()
    with cleared({"pod": pod}):
        pod.start(["crm", "status", "--json"])
        code = pod.ended(60)
    [line] = [line for line in pod.log.splitlines() if line.startswith("{") and '"contexts"' in line]
    status = json.loads(line)
    assert (code, status["problems"]) == (0, []), pod.log
    assert status["contexts"]["ingest"]["outbox"] == 0


@pytest.mark.requirement("M19", "M48")
def test_a_file_of_a_list_is_made_and_read_with_a_bucket(
    cluster: dict[str, Pod], secrets: Secrets, node: Path, endpoint: str
) -> None:
    boto3.client("s3", endpoint_url=endpoint).create_bucket(
        Bucket="files", CreateBucketConfiguration={"LocationConstraint": "cn-north-1"}
    )
    signing = OKPKey.generate_key("Ed25519", auto_kid=True)
    place = endpoint.removeprefix("http://")
    own = {
        **secrets,
        "crm-files": {"url": f"s3+http://test:test@{place}/files".encode()},
        "crm-token-keys": {"keys.json": json.dumps(KeySet([signing]).as_dict(private=False)).encode()},
    }
    found = objects(OVERLAYS / "production")
    workload = of_kind(found, "Deployment")["customer-api"]
    pod = Pod("api-with-files", workload, found, own, node / "api-with-files", free_port())
    pod.lay()
    cluster["customer-views"].until("readinessProbe")
    with _ended(cluster["customer-api"]), cleared({"pod": pod}):
        pod.start()
        pod.until("readinessProbe")
        with httpx.Client(base_url=f"http://127.0.0.1:{pod.answers_at}", timeout=30) as client:

            def asked(method: str, at: str, **body: Any) -> httpx.Response:
                headers = {"Authorization": f"Bearer {_token(signing)}", "Idempotency-Key": f"{method}-{at}"}
                answer = client.request(method, at, headers=headers, json=body or None)
                assert answer.status_code < 300, answer.text
                return answer

            asked(
                "POST",
                "/customers",
                name="周瑜",
                phone="13800001234",
                stated_assets=ASSETS,
                reason="at the counter",
            )
            until("the view shows it", lambda: bool(asked("GET", "/customers").json()["items"]))
            at = asked("POST", "/exports/customer", listing="customers", reason="for the branch").headers[
                "Location"
            ]
            until("the file is made", lambda: asked("GET", at).json()["status"] == "made")
            content = asked("POST", f"{at}/content", reason="for the branch").content.decode()
        assert "周*" in content
        assert "138****1234" in content
    for raw in ("周瑜", "13800001234"):
        assert raw not in content + pod.log


@contextmanager
def _ended(other: Pod) -> Iterator[None]:
    """Without another pod that makes exports too: the bucket of that one is away, and its tries are put off."""
    other.until("readinessProbe")
    other.terminate()
    try:
        yield
    finally:
        other.start()
        other.until("readinessProbe")


def _token(signing: OKPKey) -> str:
    """A token of the bank's issuer, as the production overlay expects it."""
    now = int(SystemClock().now().timestamp())
    claims = {"iss": "crm-access", "aud": "crm", "sub": "lin", "roles": ["administrator"]}
    header = {"alg": "Ed25519", "kid": signing.kid}
    return jwt.encode(header, claims | {"iat": now, "exp": now + 600}, signing, algorithms=["Ed25519"])


@pytest.mark.requirement("M48")
def test_a_key_that_everybody_may_read_is_refused(
    secrets: Secrets, cluster: dict[str, Pod], node: Path
) -> None:
    found = copy.deepcopy(objects(OVERLAYS / "production"))
    workload = of_kind(found, "Deployment")["customer-policies"]
    pod_of(workload)["volumes"][0]["secret"]["defaultMode"] = 0o444
    pod = Pod("open-key", workload, found, secrets, node / "open-key", free_port())
    pod.lay()
    with cleared({"pod": pod}):
        pod.start()
        said = ""
        while "may be read by others" not in said:
            said = pod.until("readinessProbe", status=503).text


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_role_is_gone_soon_after_it_is_told_to_end(cluster: dict[str, Pod], name: str) -> None:
    assert cluster[name].terminate() < SHUTDOWN_SECONDS_MAX


def test_nothing_is_written_where_no_volume_is(cluster: dict[str, Pod]) -> None:
    for pod in cluster.values():
        inside = {each.relative_to(pod.root).parts[0] for each in pod.root.rglob("*")}
        assert inside <= {"log", "etc", "tmp"}, pod.name


@pytest.mark.requirement("M48")
def test_a_pod_cannot_write_outside_its_volumes(cluster: dict[str, Pod]) -> None:
    if not isolating():
        pytest.skip("a file system that cannot be written takes root and mounts of one's own")
    pod = cluster["customer-api"]
    script = (
        "touch /tmp/x /var/tmp/x /x; test -r /root/.bashrc && echo read; touch $TMPDIR/x && id -u && id -G"
    )
    pod.start(["sh", "-c", script])
    assert pod.ended(20) == 0
    said = pod.log.splitlines()
    assert sum("Read-only file system" in line for line in said) == 3
    assert said[-2:] == ["10001", "10001"]


def test_staging_runs_as_staging_and_production_as_production(secrets: Secrets) -> None:
    for name in ("staging", "production"):
        found = objects(OVERLAYS / name)
        for workload in of_kind(found, "Deployment").values():
            assert told(pod_of(workload)["containers"][0], found, secrets)["CRM_ENVIRONMENT"] == name

"""The roles as processes of their own, as production runs them, over real servers."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import count

import httpx
import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.privacy.keys import KeyRing
from chassis.privacy.tokens import development_token
from contracts.identity import EXTERNAL_IDS

SECONDS_MAX = 60
STOPPED_WITHIN_SECONDS = 60
_NUMBERS = count(1)


@pytest.fixture
def environment(postgres_url, mongo_url, kafka_url, tmp_path):
    """Databases of their own on the servers of this run."""
    name = f"customer_processes{next(_NUMBERS)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"create database {name}")
        connection.execute(f"create database {name}_keys")
    place, _, options = mongo_url.partition("?")
    return {
        "POSTGRES_URL": psycopg.conninfo.make_conninfo(postgres_url, dbname=name),
        "CRM_KEYS_URL": psycopg.conninfo.make_conninfo(postgres_url, dbname=f"{name}_keys"),
        "MONGO_URL": f"{place.rstrip('/')}/{name}?{options}",
        "KAFKA_URL": kafka_url,
        "CRM_DATA": str(tmp_path),
        "CRM_ENVIRONMENT": "development",
    }


@contextmanager
def running(environment, *roles):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "customer", *roles]
    environment = os.environ | environment | {"CRM_PORT": str(port)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process, f"http://127.0.0.1:{port}"
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=STOPPED_WITHIN_SECONDS)
        print(said.decode())


def answered(base, path, status, headers=None):
    deadline, last = time.monotonic() + SECONDS_MAX, None
    while time.monotonic() < deadline:
        try:
            last = httpx.get(f"{base}{path}", headers=headers)
            if last.status_code == status:
                return last
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{path}: {last and last.text}")


def migrated(environment):
    command = [sys.executable, "-m", "customer", "migrate"]
    return subprocess.run(
        command, env=os.environ | environment, check=True, capture_output=True, text=True, timeout=SECONDS_MAX
    ).stdout


def test_a_role_waits_for_its_schema_and_says_so(environment):
    with running(environment, "api") as (api, base), running(environment | {"CRM_PORT": "0"}, "relay"):
        not_ready = answered(base, "/health/ready", 503).json()
        while not any("waits for `crm migrate`" in reason for reason in not_ready["reasons"]):
            not_ready = answered(base, "/health/ready", 503).json()
        assert "steps were run" in migrated(environment)
        assert " 0 steps were run" in migrated(environment)
        while any("migrate" in reason for reason in not_ready["reasons"]):
            not_ready = answered(base, "/health/ready", 503).json()
    assert api.returncode == 0


def test_each_role_by_itself_and_all_of_them_end_when_told(environment, collector):
    migrated(environment)
    endpoint, traced = collector
    environment = environment | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_SERVICE_NAME": "the bank's customers",
    }
    with running(environment, "api") as (api, base):
        not_ready = answered(base, "/health/ready", 503).json()
        while not any("is not built yet" in reason for reason in not_ready["reasons"]):
            not_ready = answered(base, "/health/ready", 503).json()
        settings = Settings(
            postgres_url=environment["POSTGRES_URL"],
            data=environment["CRM_DATA"],
            environment="development",
        )
        token = {"Authorization": f"Bearer {development_token(settings, SystemClock().now())}"}
        unavailable = httpx.get(f"{base}/customers", headers=token)
        assert (unavailable.status_code, unavailable.json()["code"]) == (503, "unavailable")
        with (
            running(environment, "relay") as (relay, _),
            running(environment, "views") as (views, _),
            running(environment, "policies") as (policies, of_policies),
        ):
            answered(base, "/health/ready", 200)
            answered(of_policies, "/health/ready", 200)
            assets = [{"product": "deposit", "amount": "300000", "currency": "CNY"}]
            body = {"name": "周瑜", "phone": "13800001234", "stated_assets": assets}
            made = httpx.post(f"{base}/customers", json=body, headers=token | {"Idempotency-Key": "1"})
            assert made.status_code == 201, made.text
            at = f"{made.headers['Location']}?at_least={made.headers['Consistency-Token']}"
            shown = answered(base, at, 200, token)
            assert (shown.json()["name"], shown.json()["phone"]) == ("周*", "138****1234")
            assert (
                'crm_http_requests_total{method="POST",route="/customers",status="201"} 1.0'
                in httpx.get(f"{base}/metrics").text
            )
    assert [process.returncode for process in (api, relay, views, policies)] == [0, 0, 0, 0]
    at_views = [body for body in traced if b"view written" in body]
    assert at_views
    assert all(b"the bank's customers" in body for body in traced)


def test_a_role_that_cannot_read_the_key_file_says_so_and_goes_on_by_itself_when_it_can(
    environment, tmp_path
):
    migrated(environment)
    key_file = tmp_path / "keys" / "kek"
    key_file.parent.mkdir()
    key_file.write_bytes(bytes(32))
    key_file.chmod(0o644)
    with running(environment, "policies") as (policies, base):
        reasons = answered(base, "/health/ready", 503).json()["reasons"]
        deadline = time.monotonic() + SECONDS_MAX
        while not any("PermissionError" in reason for reason in reasons) and time.monotonic() < deadline:
            reasons = answered(base, "/health/ready", 503).json()["reasons"]
        assert "kek may be read by others" in reasons[0]
        time.sleep(2)
        assert policies.poll() is None
        key_file.chmod(0o600)
        answered(base, "/health/ready", 200)


def test_a_service_whose_store_was_written_under_another_secret_of_ids_says_so_and_writes_nothing(
    environment,
):
    """The key database was restored to a time before the secret was made, and somebody has made another one since."""
    migrated(environment)
    with running(environment, "policies") as (_, base):
        answered(base, "/health/ready", 200)
    with psycopg.connect(environment["CRM_KEYS_URL"], autocommit=True) as connection:
        secret = connection.execute("delete from secrets returning purpose, wrapped, created_at").fetchone()
    for role in ("api", "policies"):
        assert secret_differs(environment, role, "is not in the key database")
    settings = Settings(
        postgres_url=environment["POSTGRES_URL"],
        keys_url=environment["CRM_KEYS_URL"],
        data=environment["CRM_DATA"],
        environment="development",
    )
    ring = KeyRing.of(settings, SystemClock().monotonic)
    ring.secret(EXTERNAL_IDS)
    ring.close()
    for role in ("api", "policies"):
        assert secret_differs(environment, role, "in the key database is another one")
    with psycopg.connect(environment["POSTGRES_URL"]) as connection:
        assert connection.execute("select count(*) from store_customer.events").fetchone() == (0,)
    with psycopg.connect(environment["CRM_KEYS_URL"], autocommit=True) as connection:
        connection.execute("delete from secrets")
        connection.execute("insert into secrets values (%s, %s, %s)", secret)
    with running(environment, "policies") as (_, base):
        answered(base, "/health/ready", 200)


def secret_differs(environment, role, why):
    """Whether a role says that its secret differs, in this way, and lives on."""
    with running(environment, role) as (process, base):
        deadline = time.monotonic() + SECONDS_MAX
        while time.monotonic() < deadline:
            reasons = answered(base, "/health/ready", 503).json()["reasons"]
            if any("SecretDiffers" in reason and why in reason for reason in reasons):
                return process.poll() is None
            time.sleep(0.1)
    return False

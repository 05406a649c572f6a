"""A short run of generated requests against each service's own process; `long_run` is the long one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.privacy.tokens import development_token
from crm_cli.migrate import migrated
from customer.settings import CustomerSettings
from typing_extensions import override

from tests.contract.fuzzing import fuzz

REQUESTS = 400
READY_SECONDS_MAX = 60
POSTING = json.dumps(
    {
        "record": "posting",
        "account": "A1",
        "core_transaction_id": "t1",
        "amount_minor": 5,
        "currency": "CNY",
        "booked_on": "2026-03-02",
    }
).encode()
ENTERED = {
    "name": "周静",
    "phone": "13800001234",
    "stated_assets": [{"product": "fund", "amount": "100.00", "currency": "CNY"}],
}


@contextmanager
def serving(module: str, roles: Sequence[str], environment: dict[str, str]) -> Iterator[str]:
    """A service as a process; where it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", module, *roles],
        env=os.environ | environment | {"CRM_PORT": str(port)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        until = time.monotonic() + READY_SECONDS_MAX
        while not ready(url):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.1)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def ready(url: str) -> bool:
    """Whether the process says so."""
    try:
        return httpx.get(f"{url}/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, postgres_url: str, mongo_url: str, kafka_url: str
) -> dict[str, str]:
    """Databases of their own on the servers of the run."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        for name in "crm_contract", "crm_contract_keys":
            connection.execute(f"create database {name}")
    of = psycopg.conninfo.make_conninfo
    host = mongo_url.partition("?")
    migrated(
        Settings(
            postgres_url=of(postgres_url, dbname="crm_contract"),
            keys_url=of(postgres_url, dbname="crm_contract_keys"),
        )
    )
    return {
        "POSTGRES_URL": of(postgres_url, dbname="crm_contract"),
        "CRM_KEYS_URL": of(postgres_url, dbname="crm_contract_keys"),
        "MONGO_URL": f"{host[0].rstrip('/')}/crm_contract?{host[2]}",
        "KAFKA_URL": kafka_url,
        "CRM_DATA": str(tmp_path_factory.mktemp("contract")),
        "CRM_ENVIRONMENT": "development",
    }


class Lying(BaseHTTPRequestHandler):
    """A service whose document is wrong about it in three ways."""

    @override
    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        said = {"content": {"application/json": {"schema": number}}, "description": "a number"}
        operation = {"get": {"responses": {"200": said}}}
        paths = dict.fromkeys(["/word", "/broken", "/gone", "/honest"], operation)
        document = {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": paths}
        status, body = {
            "/openapi.json": (200, document),
            "/word": (200, {"n": "word"}),
            "/broken": (500, {"n": 1}),
            "/gone": (410, {"n": 1}),
            "/honest": (200, {"n": 1}),
        }[self.path.partition("?")[0]]
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def test_a_wrong_answer_is_seen() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Lying) as server:
        Thread(target=server.serve_forever).start()
        try:
            result = fuzz(f"http://127.0.0.1:{server.server_address[1]}", "none", 8, known={})
        finally:
            server.shutdown()
    wrong = {failure.split()[1] for failure in result.failures}
    assert wrong == {"/word", "/broken", "/gone"}


def token(environment: dict[str, str]) -> str:
    """What lets a caller in."""
    places: dict[str, Any] = {
        "postgres_url": environment["POSTGRES_URL"],
        "data": Path(environment["CRM_DATA"]),
        "environment": "development",
    }
    return development_token(CustomerSettings(**places), SystemClock().now())


@pytest.mark.requirement("D06")
def test_customer_keeps_to_its_document(environment: dict[str, str]) -> None:
    with serving("customer", ["api", "relay", "views"], environment) as url:
        caller = {"Authorization": f"Bearer {token(environment)}", "Idempotency-Key": "one"}
        made = httpx.post(f"{url}/customers", json=ENTERED, headers=caller)
        assert made.status_code == 201, made.text
        result = fuzz(url, token(environment), REQUESTS, known={"customer_id": [made.json()["customer_id"]]})
    print("\n".join(result.lines()))
    assert result.failures == []
    assert all(sum(counted.values()) for counted in result.statuses.values())
    for operation in "GET /customers/{customer_id}/panorama", "PUT /customers/{customer_id}/name":
        assert 200 in result.statuses[operation]


@pytest.mark.requirement("D06")
def test_ingest_keeps_to_its_document(environment: dict[str, str]) -> None:
    with serving("sync_ingest", ["api"], environment) as url:
        caller = {"Authorization": f"Bearer {token(environment)}", "Idempotency-Key": "one"}
        asked = {"source": "contract"}
        taken = httpx.post(f"{url}/ingest/batches", params=asked, content=POSTING, headers=caller, timeout=30)
        assert taken.status_code == 201, taken.text
        known = {"certificate_id": [taken.json()["certificate_id"]]}
        result = fuzz(url, token(environment), REQUESTS, known=known)
    print("\n".join(result.lines()))
    assert result.failures == []
    assert 200 in result.statuses["GET /ingest/certificates/{certificate_id}"]

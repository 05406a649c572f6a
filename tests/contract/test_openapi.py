"""Each service's own process keeps to its documents: with clients generated from them, and with generated requests.

`long_run` sends more of those.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from io import BytesIO
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.files.checking import TYPES
from chassis.messaging.asyncapi import described
from chassis.privacy.tokens import development_token
from chassis.service import services
from confluent_kafka import Consumer, TopicPartition
from contracts.envelope import WATERMARK
from crm_cli.migrate import migrated
from customer.settings import CustomerSettings
from typing_extensions import override

from tests.contract.fuzzing import fuzz

REQUESTS = 640
READY_SECONDS_MAX = 60
GENERATING_SECONDS_MAX = 60
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
            assert time.monotonic() < until, "the application does not answer"
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
    """A service whose document is wrong about it in four ways."""

    @override
    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        said = {"content": {"application/json": {"schema": number}}, "description": "a number"}
        operation = {"get": {"responses": {"200": said}}}
        paths = dict.fromkeys(["/word", "/broken", "/gone", "/header", "/honest"], operation)
        document = {"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "paths": paths}
        status, body = {
            "/openapi.json": (200, document),
            "/word": (200, {"n": "word"}),
            "/broken": (500, {"n": 1}),
            "/gone": (410, {"n": 1}),
            "/header": (200, {"n": 1}),
            "/honest": (200, {"n": 1}),
        }[self.path.partition("?")[0]]
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if self.path.startswith("/header"):
            self.send_header("X-Undeclared", "1")
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
    assert wrong == {"/word", "/broken", "/gone", "/header"}


def token(environment: dict[str, str]) -> str:
    """What lets a caller in."""
    places: dict[str, Any] = {
        "postgres_url": environment["POSTGRES_URL"],
        "data": Path(environment["CRM_DATA"]),
        "environment": "development",
    }
    return development_token(CustomerSettings(**places), SystemClock().now())


@pytest.fixture(scope="module")
def customer_url(environment: dict[str, str]) -> Iterator[str]:
    """Where customer answers, as a process of its own."""
    with serving("customer", ["api", "relay", "views", "derived"], environment) as url:
        yield url


@pytest.fixture(scope="module")
def ingest_url(environment: dict[str, str]) -> Iterator[str]:
    """Where ingest answers, as a process of its own."""
    with serving("sync_ingest", ["api", "relay"], environment) as url:
        yield url


@pytest.fixture(scope="module")
def generated(
    tmp_path_factory: pytest.TempPathFactory, customer_url: str, ingest_url: str, kafka_url: str
) -> Iterator[Path]:
    """A folder with packages that others' generators made: `customer_client`, `ingest_client` and `records`."""
    folder = tmp_path_factory.mktemp("generated")
    sys.path.insert(0, str(folder))
    for name, url in ("customer", customer_url), ("ingest", ingest_url):
        client_of(f"{url}/openapi.json", folder / f"{name}_client")
    taken = [each for service in services() for each in service.taken]
    models_of(described(taken, brokers=kafka_url), folder / "records.py")
    yield folder
    sys.path.remove(str(folder))


def client_of(document_url: str, package: Path) -> None:
    """Generates a client from an OpenAPI document; fails where the generator cannot use a part of it."""
    settings = {
        "post_hooks": [],
        # The body of a batch or of a file is bytes, whatever their media type is.
        "content_type_overrides": dict.fromkeys(
            ["application/x-ndjson", "text/csv", "text/event-stream", *TYPES],
            "application/octet-stream",
        ),
    }
    config = package.with_suffix(".json")
    config.write_text(json.dumps(settings))
    command = ["generate", "--url", document_url, "--output-path", package, "--meta", "none"]
    said = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *command, "--config", config, "--fail-on-warning"],
        capture_output=True,
        text=True,
        timeout=GENERATING_SECONDS_MAX,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr


def models_of(document: dict[str, Any], module: Path) -> None:
    """Generates models from an AsyncAPI document."""
    source = module.with_suffix(".json")
    source.write_text(json.dumps(document))
    kinds = ["--input-file-type", "asyncapi", "--output-model-type", "pydantic_v2.BaseModel"]
    kinds += ["--formatters", "builtin"]
    said = subprocess.run(
        [sys.executable, "-m", "datamodel_code_generator", "--input", source, "--output", module, *kinds],
        capture_output=True,
        text=True,
        timeout=GENERATING_SECONDS_MAX,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr


class Client:
    """A generated client: its models, and its operations by the names of the document."""

    def __init__(self, package: str, tag: str, url: str, token: str) -> None:
        self._operations = f"{package}.api.{tag}"
        self.models = import_module(f"{package}.models")
        self.types = import_module(f"{package}.types")
        self._client = import_module(package).AuthenticatedClient(base_url=url, token=token)

    def close(self) -> None:
        """Closes its connections."""
        self._client.get_httpx_client().close()

    def ask(self, operation: str, **asked: Any) -> Any:
        """The response with status, headers and what the client made of the body."""
        return import_module(f"{self._operations}.{operation}").sync_detailed(client=self._client, **asked)


@pytest.fixture
def customer_client(generated: Path, customer_url: str, environment: dict[str, str]) -> Iterator[Client]:
    """The client that was generated from customer's document."""
    with closing(Client("customer_client", "customer", customer_url, token(environment))) as client:
        yield client


@pytest.fixture
def ingest_client(generated: Path, ingest_url: str, environment: dict[str, str]) -> Iterator[Client]:
    """The client that was generated from ingest's document."""
    with closing(Client("ingest_client", "ingest", ingest_url, token(environment))) as client:
        yield client


@pytest.mark.requirement("D06")
def test_a_generated_client_registers_changes_and_reads_a_customer(
    customer_client: Client, customer_url: str, environment: dict[str, str]
) -> None:
    client, models, began = customer_client, customer_client.models, SystemClock().now()
    document = httpx.get(f"{customer_url}/openapi.json").json()
    example = document["paths"]["/customers"]["post"]["requestBody"]["content"]["application/json"]["example"]
    made = client.ask(
        "register_customer", body=models.RegisterBody.from_dict(example), idempotency_key="generated-1"
    )
    assert (made.status_code, type(made.parsed)) == (201, models.Done)
    customer, position = made.parsed.customer_id, made.parsed.position
    seen = client.ask("get_customer", customer_id=customer, at_least=f"customer-{position}")
    assert seen.parsed.kind is models.CustomerShownKind.PERSON
    assert seen.parsed.registered_at.tzinfo is not None
    [reference] = seen.parsed.references
    assert reference.status is models.LinkedReferenceStatus.PENDING
    renaming = {"customer_id": customer, "body": models.NameBody("王芳"), "if_match": seen.headers["ETag"]}
    renamed = client.ask("rename_customer", idempotency_key="generated-2", **renaming)
    assert renamed.parsed.version == seen.parsed.version + 1
    again = client.ask("rename_customer", idempotency_key="generated-3", **renaming)
    assert (again.status_code, again.parsed.version) == (200, renamed.parsed.version)
    other = {**renaming, "body": models.NameBody("王菲")}
    late = client.ask("rename_customer", idempotency_key="generated-4", **other)
    assert (late.status_code, late.parsed.code) == (412, "version-mismatch")
    assert late.parsed.etag == renamed.headers["ETag"]
    shown = client.ask(
        "get_panorama", customer_id=customer, at_least=f"customer-{renamed.parsed.position}", month="2026-01"
    )
    assert (type(shown.parsed), shown.parsed.currencies, shown.parsed.name) == (models.Panorama, [], "王*")
    listed = client.ask("list_events", customer_id=customer, limit=50)
    assert [each.name for each in listed.parsed.items] == [
        "customer-registered",
        "reference-claimed",
        "customer-renamed",
    ]
    told = {"customer.registered.v1", "customer.reference_claimed.v1", "customer.renamed.v1"}
    payloads = payloads_since(began, environment["KAFKA_URL"], "crm.customer.events", told)
    assert payloads["customer.registered.v1"].kind.value == "person"


@pytest.mark.requirement("D06")
def test_clients_generated_from_both_documents_bring_a_posting_and_read_the_records_of_it(
    ingest_client: Client, environment: dict[str, str]
) -> None:
    records, client = import_module("records"), ingest_client
    began = SystemClock().now()
    brought = records.CorebankPostingsRecordPosting(
        record="posting",
        account="G1",
        core_transaction_id="g1",
        amount_minor=1_250_000,
        currency="CNY",
        booked_on="2026-01-05",
    )
    content = BytesIO(brought.model_dump_json(exclude_unset=True).encode())
    taken = client.ask(
        "take_batch_in", body=client.types.File(content), source="generated", idempotency_key="generated-4"
    )
    assert (taken.status_code, taken.parsed.posted, taken.parsed.credits_minor) == (201, 1, 1_250_000)
    certificate = client.ask("get_certificate", certificate_id=taken.parsed.certificate_id)
    assert certificate.parsed.status is client.models.CertificateStatus.AMBER
    wanted = {"account.seen.v1", "posting.booked.v1", "feed.certified.v2", "crm.watermark"}
    payloads = payloads_since(began, environment["KAFKA_URL"], "crm.ingest.events", wanted)
    booked = payloads["posting.booked.v1"]
    assert (booked.amount_minor, booked.booked_on.isoformat()) == (1_250_000, "2026-01-05")


def payloads_since(began: datetime, kafka_url: str, topic: str, wanted: set[str]) -> dict[str, Any]:
    """The last payload of each message of the document on a topic since a moment; the generated models read each record,
    headers and body."""
    models, found = import_module("records"), {}
    for name, headers, body in records_since(began, kafka_url, topic, wanted):
        made_of = "".join(part.capitalize() for part in re.split(r"[._]", name))
        getattr(models, f"{made_of}Headers").model_validate(headers)
        found[name] = getattr(models, made_of).model_validate_json(body)
    return found


def records_since(
    began: datetime, kafka_url: str, topic: str, wanted: set[str]
) -> list[tuple[str, dict[str, str], bytes]]:
    """The records of a topic since a moment, as (message of the document, headers, body), until all wanted are there."""
    consumer = Consumer({"bootstrap.servers": kafka_url, "group.id": "generated"})
    found: list[tuple[str, dict[str, str], bytes]] = []
    until = time.monotonic() + READY_SECONDS_MAX
    try:
        partitions = list(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        at = int(began.timestamp() * 1000)
        consumer.assign(
            consumer.offsets_for_times([TopicPartition(topic, each, at) for each in partitions], timeout=10)
        )
        while not wanted <= {name for name, _, _ in found}:
            assert time.monotonic() < until, f"not there in time: {wanted - {name for name, _, _ in found}}"
            record = consumer.poll(1.0)
            if record is not None and record.error() is None:
                headers = {name: value.decode() for name, value in record.headers()}
                version = f".v{headers['ce_dataversion']}" if headers["ce_type"] != WATERMARK else ""
                found.append((headers["ce_type"] + version, headers, record.value()))
    finally:
        consumer.close()
    return found


@pytest.mark.requirement("D06")
def test_customer_keeps_to_its_document(customer_url: str, environment: dict[str, str]) -> None:
    caller = {"Authorization": f"Bearer {token(environment)}", "Idempotency-Key": "one"}
    made = httpx.post(f"{customer_url}/customers", json=ENTERED, headers=caller)
    assert made.status_code == 201, made.text
    known = {"customer_id": [made.json()["customer_id"]]}
    result = fuzz(customer_url, token(environment), REQUESTS, known=known)
    print("\n".join(result.lines()))
    assert result.failures == []
    assert all(sum(counted.values()) for counted in result.statuses.values())
    assert 200 in result.statuses["GET /customers/{customer_id}/panorama"]
    # Each edit that succeeds changes the version that the others must name, so which of them do is drawn.
    edits = [counted for operation, counted in result.statuses.items() if operation.startswith("PUT ")]
    assert any(200 in counted for counted in edits)


@pytest.mark.requirement("D06")
def test_ingest_keeps_to_its_document(ingest_url: str, environment: dict[str, str]) -> None:
    caller = {"Authorization": f"Bearer {token(environment)}", "Idempotency-Key": "one"}
    batches = f"{ingest_url}/ingest/batches"
    taken = httpx.post(batches, params={"source": "contract"}, content=POSTING, headers=caller, timeout=30)
    assert taken.status_code == 201, taken.text
    known = {"certificate_id": [taken.json()["certificate_id"]]}
    result = fuzz(ingest_url, token(environment), REQUESTS, known=known)
    print("\n".join(result.lines()))
    assert result.failures == []
    assert 200 in result.statuses["GET /ingest/certificates/{certificate_id}"]

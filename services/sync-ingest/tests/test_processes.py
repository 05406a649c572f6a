"""The roles as processes of their own, as production runs them, over real servers."""

import asyncio
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import httpx
import pytest
from chassis.clock import SystemClock
from chassis.messaging.records import Record
from chassis.messaging.transport import KafkaPublisher, ensure_topics, read_to_end
from chassis.privacy.tokens import development_token
from contracts.topics import COREBANK_POSTINGS, INGEST_EVENTS
from sync_ingest.opening import opened
from sync_ingest.settings import SyncIngestSettings

SECONDS_MAX = 100
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE = f"00-{TRACE_ID}-b7ad6b7169203331-01"
POSTING = {
    "record": "posting",
    "core_transaction_id": "t1",
    "amount_minor": 5,
    "currency": "CNY",
    "booked_on": "2026-03-02",
}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def environment(postgres_url, kafka_url, data):
    return {
        "POSTGRES_URL": postgres_url,
        "KAFKA_URL": kafka_url,
        "CRM_DATA": str(data),
        "CRM_ENVIRONMENT": "development",
        "CRM_PORT": str(free_port()),
    }


@contextmanager
def running(environment, *roles):
    process = subprocess.Popen(
        [sys.executable, "-m", "sync_ingest", *roles],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    base = f"http://127.0.0.1:{environment['CRM_PORT']}"
    try:
        yield process, base
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=SECONDS_MAX)
        print(said, file=sys.stderr)


def ready(base):
    deadline, last = time.monotonic() + SECONDS_MAX, None
    while time.monotonic() < deadline:
        try:
            last = httpx.get(f"{base}/health/ready")
            if last.status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not ready: {last and last.text}")


def authorization(environment):
    settings = SyncIngestSettings(
        postgres_url=environment["POSTGRES_URL"], data=environment["CRM_DATA"], environment="development"
    )
    return {"Authorization": f"Bearer {development_token(settings, SystemClock().now())}"}


async def published_traces(kafka_url, subjects):
    """Trace ids of the published events of these subjects, by subject, once each has one."""
    found = {}
    deadline = time.monotonic() + SECONDS_MAX
    while found.keys() != set(subjects) and time.monotonic() < deadline:
        async for page in read_to_end(kafka_url, INGEST_EVENTS.name):
            for record in page:
                headers = dict(record.headers)
                subject = headers.get("ce_subject", b"").decode()
                if subject in subjects:
                    found.setdefault(subject, set()).add(headers["traceparent"].decode().split("-")[1])
    return found


@pytest.mark.requirement("M44")
async def test_one_trace_leads_from_a_batch_or_a_record_through_the_store_to_the_topic(
    environment, kafka_url, source
):
    await ensure_topics(kafka_url, [COREBANK_POSTINGS])
    publisher = KafkaPublisher(kafka_url)
    with running(environment, "api", "relay", "feed") as (process, base):
        ready(base)
        answer = await asyncio.to_thread(
            httpx.post,
            f"{base}/ingest/batches",
            params={"source": source},
            content=json.dumps(POSTING | {"account": "A1"}).encode(),
            headers=authorization(environment) | {"Idempotency-Key": source, "traceparent": TRACE},
            timeout=SECONDS_MAX,
        )
        assert answer.status_code == 201, answer.text
        other = "00-" + TRACE_ID[::-1] + "-b7ad6b7169203331-01"
        await publisher.publish(
            [
                Record(
                    COREBANK_POSTINGS.name,
                    0,
                    b"A2",
                    [("source", source.encode()), ("traceparent", other.encode())],
                    json.dumps(POSTING | {"account": "A2"}).encode(),
                )
            ]
        )
        settings = SyncIngestSettings(postgres_url=environment["POSTGRES_URL"], data=environment["CRM_DATA"])
        with opened(settings) as ingest:
            ids = ingest.ids
        one, two = str(ids.account(source, "A1")), str(ids.account(source, "A2"))
        assert await published_traces(kafka_url, {one, two}) == {one: {TRACE_ID}, two: {TRACE_ID[::-1]}}
        level = 'crm_lag_events{context="corebank",group="sync-ingest.feed"} 0.0'
        deadline = time.monotonic() + SECONDS_MAX
        while level not in (metrics := (await asyncio.to_thread(httpx.get, f"{base}/metrics")).text):
            assert time.monotonic() < deadline, metrics
            await asyncio.sleep(0.1)
    await publisher.close()
    assert process.returncode == 0


def test_nobody_gets_in_without_a_token_and_every_error_is_a_problem(environment, source):
    with running(environment, "api") as (process, base):
        ready(base)
        nobody = httpx.get(f"{base}/ingest/certificates")
        assert (nobody.status_code, nobody.headers["content-type"]) == (401, "application/problem+json")
        asking = authorization(environment)
        keyless = httpx.post(
            f"{base}/ingest/batches", content=b"x", headers=asking, params={"source": source}
        )
        assert (keyless.status_code, keyless.json()["code"]) == (400, "idempotency-key-missing")
        lost = httpx.post(
            f"{base}/ingest/batches",
            content=b"x",
            headers=asking | {"Idempotency-Key": "k"},
            params={"source": "a:b"},
        )
        assert (lost.status_code, lost.json()["code"]) == (422, "source-name-invalid")
        broken = httpx.post(
            f"{base}/ingest/batches",
            content=b"--no form--",
            headers=asking | {"Idempotency-Key": source, "Content-Type": "multipart/form-data; boundary=x"},
        )
        assert broken.status_code in (400, 422)
        large = httpx.post(
            f"{base}/ingest/batches",
            content=b"x" * ((16 << 20) + 1),
            headers=asking | {"Idempotency-Key": source},
            params={"source": source},
            timeout=30,
        )
        assert large.status_code == 413
        for coding in ("gzip", "br"):
            packed = httpx.post(
                f"{base}/ingest/batches",
                content=gzip.compress(json.dumps(POSTING | {"account": "A1"}).encode()),
                headers=asking | {"Idempotency-Key": source, "Content-Encoding": coding},
                params={"source": source},
            )
            assert (packed.status_code, packed.json()["code"]) == (415, "content-coding-unsupported")
        waiting = httpx.get(f"{base}/ingest/quarantine", headers=asking, params={"source": source})
        assert waiting.json()["items"] == [], "nothing of them was kept"
        two = b"".join(
            json.dumps(
                POSTING | {"account": "A1", "text": "x" * 900, "core_transaction_id": f"t{n}"}
            ).encode()
            + b"\n"
            for n in range(2_000)
        )
        assert len(two) > 1 << 20
        taken = httpx.post(
            f"{base}/ingest/batches",
            content=two,
            headers=asking | {"Idempotency-Key": source},
            params={"source": source},
            timeout=30,
        )
        assert (taken.status_code, taken.json()["posted"]) == (201, 2_000)
    assert process.returncode == 0


@pytest.mark.parametrize("role", ["api", "relay", "feed"])
def test_a_role_whose_server_is_not_there_says_so_and_waits_for_it(environment, role):
    missing = {"POSTGRES_URL": "postgresql://127.0.0.1:1/nowhere", "KAFKA_URL": "127.0.0.1:1"}
    with running(environment | missing, role) as (process, base):
        deadline = time.monotonic() + SECONDS_MAX
        reasons = []
        while not reasons and time.monotonic() < deadline:
            try:
                answer = httpx.get(f"{base}/health/ready")
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            said = answer.json().get("reasons", [])
            reasons = [each for each in said if "starting" not in each]
        assert answer.status_code == 503
        assert reasons
        assert httpx.get(f"{base}/health/live").status_code == 200
    assert process.returncode == 0

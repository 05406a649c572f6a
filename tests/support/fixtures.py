"""What the tests of a service need: keys, a database for views, and events as a consumer gets them.

`from tests.support.fixtures import key_ring, keys_url, mongo` in a `conftest.py` makes the fixtures known there.
"""

import json
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.migrating import migrate
from chassis.messaging.delivered import Delivered, read
from chassis.messaging.records import Record
from chassis.privacy.key_encryption import FileKeyEncryption
from chassis.privacy.keys import KEYS, KeyRing, Origin, seal
from chassis.read.mongo import Mongo
from contracts.envelope import Envelope
from contracts.registry import context_of, model_of
from contracts.topics import EVENTS

AT = datetime(2026, 1, 5, 8, tzinfo=UTC)
_NUMBERS = count(1)


@pytest.fixture
def keys_url(postgres_url: str) -> str:
    """An empty database of data keys."""
    return empty_keys(postgres_url)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A collector that speaks OTLP over HTTP: its address, and the bodies that it got."""
    got: list[bytes] = []

    class Collecting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.path.encode() + b" " + self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collecting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", got
    server.shutdown()
    server.server_close()


def empty_keys(postgres_url: str) -> str:
    """Makes an empty database of data keys."""
    url = _empty_database(postgres_url, "keys")
    migrate(url, [KEYS])
    return url


@pytest.fixture
def events_url(postgres_url: str) -> str:
    """An empty database for an event store and the tables beside it."""
    return _empty_database(postgres_url, "events")


def _empty_database(postgres_url: str, kind: str) -> str:
    name = f"{kind}_of_test{next(_NUMBERS)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"drop database if exists {name}")
        connection.execute(f"create database {name}")
    return psycopg.conninfo.make_conninfo(postgres_url, dbname=name)


@pytest.fixture
def key_ring(keys_url: str, tmp_path: Path) -> Iterator[KeyRing]:
    """The data keys."""
    ring = KeyRing.open(
        keys_url, FileKeyEncryption.at(tmp_path / "kek", create=True), SystemClock().monotonic
    )
    yield ring
    ring.close()


@pytest.fixture
async def mongo(mongo_url: str) -> AsyncIterator[Mongo]:
    """An empty database for views."""
    mongo = Mongo.connect(mongo_url, database=f"views_of_test{next(_NUMBERS)}")
    yield mongo
    await mongo.drop_database()
    await mongo.close()


def delivered(
    type: str,
    subject: UUID,
    sequence: int = 1,
    *,
    version: int = 1,
    position: int | None = None,
    ring: KeyRing | None = None,
    **data: Any,
) -> Delivered:
    """A public event as the relay publishes it and a consumer reads it. Where `ring` is given, its personal
    values are sealed under the key of the subject."""
    context = context_of(type, version)
    stored_name = type.replace(".", "-").replace("_", "-")
    personal = model_of(type, version).PERSONAL
    if ring is not None:
        key = ring.keys_for([subject])[subject]
        origin = Origin(context, subject, sequence, stored_name)
        data |= {
            field: seal(key, origin.aad(field, key), data[field])
            for field in personal
            if data.get(field) is not None
        }
    envelope = Envelope(
        id=uuid5(subject, str(sequence)),
        type=type,
        version=version,
        context=context,
        subject=subject,
        sequence=sequence,
        position=position or sequence,
        recorded_at=AT,
        effective_at=AT,
        stored_name=stored_name,
        correlation_id=UUID(int=5),
        causation_id=UUID(int=6),
    )
    record = Record(EVENTS[context].name, 0, subject.bytes, envelope.headers(), json.dumps(data).encode(), 0)
    found = read(record)
    assert isinstance(found, Delivered)
    return found

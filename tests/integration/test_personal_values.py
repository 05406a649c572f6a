"""No plain personal value is in any byte of PostgreSQL's and Kafka's files; the search is shown to find things.

The inbound topic is left out: branch systems write it, and what they send is theirs. MongoDB's files are read as
documents and Kafka's also as records, because both are compressed.
"""

import asyncio
import base64
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from chassis.connections.kafka import connecting
from chassis.messaging.records import Record
from chassis.messaging.transport import ensure_topics, read_to_end
from contracts.topics import COREBANK_POSTINGS, Topic
from sync_ingest import bootstrap as ingest_service
from sync_ingest.domain.identities import QuarantineId
from sync_ingest.runs.ports import Acting

from tests.integration.conftest import System, lines

NAME = "欧阳霁月"
COUNTERPARTY = "濮阳孝廉"
TEXT = "归还借款予老友濮阳"
ACCOUNT = "6222009988776655443"
OTHER_ACCOUNT = "6217003344556677889"
PHONE = "17712340987"
IDENTITY = "990099195507070011"
EMAIL = "jiyue.ouyang@example.com"
ADDRESS = "未名市柳荫里十七号"
PARTY = "P-VIP-7788990"
BY_HAND = "司徒望舒"
STATED = [{"product": "fund", "amount": "100.00", "currency": "CNY"}]
BAD_NAME = "申屠失意"
NEED = "想为外孙慕容清越投保"
EVIDENCE = "授权书由轩辕明镜代签"
OCCUPATION = "homemaker"
FILE_PERSON = "O'Brien\"太叔静姝"
FILE_ACCOUNT = "6228481122334455667"
FILE = f"{FILE_PERSON} {FILE_ACCOUNT}.csv"
"""People name files after customers and accounts."""
ALL = (
    FILE_PERSON,
    FILE_ACCOUNT,
    NAME,
    COUNTERPARTY,
    TEXT,
    ACCOUNT,
    OTHER_ACCOUNT,
    PHONE,
    IDENTITY,
    EMAIL,
    ADDRESS,
    PARTY,
    BY_HAND,
    BAD_NAME,
    NEED,
    EVIDENCE,
    OCCUPATION,
)
SOURCE = "private-bank"
PLANTED = "诸葛无忌被看见"
PLANTED_TOPIC = Topic("planted", 1, "none", "What the search must find")

FEED: tuple[dict[str, Any], ...] = (
    {
        "record": "party",
        "party": PARTY,
        "name": NAME,
        "born_on": "1955-07-07",
        "identity_number": IDENTITY,
        "phone": PHONE,
        "email": EMAIL,
        "address": ADDRESS,
    },
    {"record": "account", "account": ACCOUNT, "opened_on": "2020-01-01", "currency": "CNY", "name": NAME},
    {"record": "holder", "account": ACCOUNT, "party": PARTY, "role": "owner"},
    {
        "record": "posting",
        "account": ACCOUNT,
        "core_transaction_id": "p1",
        "amount_minor": -123_456,
        "currency": "CNY",
        "booked_on": "2026-03-02",
        "counterparty_account": OTHER_ACCOUNT,
        "counterparty_name": COUNTERPARTY,
        "text": TEXT,
    },
    {
        "record": "posting",
        "account": ACCOUNT,
        "core_transaction_id": "p2",
        "amount_minor": "a lot",
        "currency": "CNY",
        "booked_on": "2026-03-02",
        "counterparty_name": BAD_NAME,
    },
)


CONTROL = {"record": "control", "records": 17}


def spellings(value: str) -> Iterator[bytes]:
    """How a value may lie in a file."""
    yield value.encode()
    yield value.encode("utf-16-le")
    yield value.encode("gb18030")
    yield value.encode().hex().encode()
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + value.encode()).rstrip(b"=")
        yield encoded[4:-4]
    if not value.isascii():
        yield json.dumps(value).strip('"').encode()


def found_in(folder: Path, values: Iterable[str], but: str = "") -> dict[str, set[str]]:
    """Which values are in which files below a folder."""
    wanted = [(value, spelling) for value in values for spelling in set(spellings(value))]
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*"):
        if not path.is_file() or not path.stat().st_size or (but and but in str(path)):
            continue
        content = path.read_bytes()  # not mapped: a server may cut it off meanwhile
        for value, spelling in wanted:
            if spelling in content:
                found.setdefault(value, set()).add(str(path.relative_to(folder)))
    return found


def in_rows(url: str, values: Iterable[str]) -> dict[str, set[str]]:
    """Which values are in which tables, whatever the pages do with them."""
    found: dict[str, set[str]] = {}
    with psycopg.connect(url) as connection:
        tables = connection.execute(
            "select format('%I.%I', schemaname, tablename) from pg_tables"
            " where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        for (table,) in tables:
            with connection.cursor().copy(f"copy {table} to stdout") as rows:
                content = b"".join(bytes(row) for row in rows)
            for value in values:
                if any(spelling in content for spelling in spellings(value)):
                    found.setdefault(value, set()).add(table)
    return found


async def in_topics(url: str, values: Iterable[str], but: str = "") -> dict[str, set[str]]:
    """Which values are in which topics, in key, headers or body of a record."""
    wanted = [(value, spelling) for value in values for spelling in set(spellings(value))]
    found: dict[str, set[str]] = {}
    admin = AIOKafkaAdminClient(**connecting(url))
    await admin.start()
    try:
        topics = [name for name in await admin.list_topics() if not name.startswith("__") and name != but]
    finally:
        await admin.close()
    for topic in topics:
        async for page in read_to_end(url, topic):
            for record in page:
                headers = (part for name, value in record.headers for part in (name.encode(), value))
                content = b"\n".join([record.key, record.value, *headers])
                for value, spelling in wanted:
                    if spelling in content:
                        found.setdefault(value, set()).add(topic)
    return found


def settled(url: str) -> None:
    """Everything that PostgreSQL knows is in its files."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("checkpoint")


@pytest.fixture(scope="module")
async def entrusted(system: System) -> System:
    """Somebody's personal values have come in by every way, were projected, reacted to and quarantined."""
    answer = await system.web.post(
        "/ingest/batches",
        params={"source": SOURCE},
        content=lines(*FEED),
        headers={"Idempotency-Key": "personal"},
    )
    assert answer.status_code == 201, answer.text
    assert (answer.json()["posted"], answer.json()["quarantined"]) == (1, 1)
    made = await system.web.post(
        "/customers",
        json={"name": BY_HAND, "phone": PHONE, "stated_assets": STATED},
        headers={"Idempotency-Key": "personal"},
    )
    assert made.status_code == 201, made.text
    for what, body in (
        ("needs", {"kind_text": NEED, "text": NEED, "channel": "visit"}),
        ("consents", {"channel": "sms", "purpose": "marketing", "evidence": EVIDENCE}),
    ):
        noted = await system.web.post(
            f"{made.headers['Location']}/{what}", json=body, headers={"Idempotency-Key": f"personal-{what}"}
        )
        assert noted.status_code == 200, noted.text
    profile = f"{made.headers['Location']}/profile"
    tag = (await system.web.get(profile)).headers["ETag"]
    extended = await system.web.patch(
        profile,
        json={"occupation": OCCUPATION, "channel": "visit"},
        headers={"Idempotency-Key": "personal-profile", "If-Match": tag},
    )
    assert extended.status_code == 200, extended.text
    assert (await asyncio.to_thread(system.take_in, SOURCE, b"{broken\n", FILE)).findings.quarantined == 1
    answer = await system.web.post(
        "/ingest/batches",
        data={"source": SOURCE},
        files=[("file", (FILE, lines(CONTROL)))],
        headers={"Idempotency-Key": "named"},
    )
    assert (answer.status_code, answer.json()["certificate"]) == (201, "RED"), answer.text
    await system.caught_up()
    shown = await system.panorama(f"{SOURCE}:{PARTY}")
    assert shown["currencies"][0]["overdrafts"]["amount_minor"] == 123_456
    settled(system.customer.postgres_url)
    return system


@pytest.mark.requirement("R087", "M05")
def test_postgresql_holds_none(entrusted: System) -> None:
    folder = entrusted.folder / "servers" / "postgres"
    assert found_in(folder, ALL) == {}
    assert in_rows(entrusted.customer.postgres_url, ALL) == {}
    assert in_rows(entrusted.customer.keys_url, ALL) == {}


def test_the_search_finds_what_is_in_postgresql(entrusted: System) -> None:
    url = entrusted.customer.postgres_url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table planted (value text)")
        # More than once: of the log, one may lie across two pages, with the head of the second in the middle of it.
        connection.execute("insert into planted select %s from generate_series(1, 3)", (PLANTED,))
    settled(url)
    places = found_in(entrusted.folder / "servers" / "postgres", [PLANTED, SOURCE])
    assert any("pg_wal" in place for place in places[PLANTED])
    assert any("base" in place for place in places[PLANTED])
    assert places[SOURCE]
    assert in_rows(url, [PLANTED]) == {PLANTED: {"public.planted"}}


@pytest.mark.requirement("R087", "M05")
async def test_kafka_holds_none(entrusted: System) -> None:
    folder = entrusted.folder / "servers" / "kafka"
    assert found_in(folder, ALL, but=COREBANK_POSTINGS.name) == {}
    assert await in_topics(entrusted.customer.kafka_url, ALL, but=COREBANK_POSTINGS.name) == {}


async def test_the_search_finds_what_is_in_kafka(entrusted: System) -> None:
    await ensure_topics(entrusted.customer.kafka_url, [PLANTED_TOPIC])
    await entrusted.publisher.publish([Record(PLANTED_TOPIC.name, 0, b"", [], PLANTED.encode())])
    in_files = found_in(entrusted.folder / "servers" / "kafka", [PLANTED])
    assert any(PLANTED_TOPIC.name in place for place in in_files[PLANTED]), "a single record"
    in_records = await in_topics(entrusted.customer.kafka_url, [PLANTED, SOURCE])
    assert in_records[PLANTED] == {PLANTED_TOPIC.name}
    assert "crm.ingest.events" in in_records[SOURCE]


@pytest.mark.requirement("R087", "M05")
async def test_documents_hold_none(entrusted: System) -> None:
    for database in (entrusted.mongo, entrusted.mongo.beside("policies")):
        for collection in await database.collections():
            async for page in database.pages(collection):
                content = str(page)
                assert [value for value in ALL if value in content] == [], collection


async def test_whoever_may_sees_them(entrusted: System) -> None:
    """Sealed is not lost: the values come back where they are asked for."""
    shown = await entrusted.panorama(f"{SOURCE}:{PARTY}")
    assert shown["name"].startswith(NAME[0])
    assert shown["name"].strip("*") != NAME
    account = next(one for one in shown["accounts"] if one["balances"])
    page = (await entrusted.web.get(account["balances"][0]["events"])).json()
    assert [one["amount_minor"] for one in page["items"]] == [-123_456]


async def test_the_name_of_a_file_is_shown_with_its_record_and_nowhere_else(entrusted: System) -> None:
    page = (await entrusted.web.get("/ingest/quarantine", params={"source": SOURCE})).text
    certificates = (await entrusted.web.get("/ingest/certificates", params={"source": SOURCE})).text
    assert "control-total-differs" in certificates
    for shown in (page, certificates):
        assert [value for value in (FILE_PERSON, "太叔静姝", FILE_ACCOUNT) if value in shown] == []
    [entry] = [one for one in json.loads(page)["items"] if one["file"] == "***.csv"]
    with ingest_service.opened(entrusted.ingest, acting=Acting("anna")) as ingest:
        seen = ingest.show(QuarantineId(UUID(entry["id"])), "to repair it")
    assert (seen.file, seen.line, seen.raw) == (FILE, 1, b"{broken")


def test_every_spelling_is_searched(tmp_path: Path) -> None:
    for number, spelling in enumerate(spellings(PLANTED)):
        (tmp_path / str(number)).write_bytes(b"before " + spelling + b" after")
    assert found_in(tmp_path, [PLANTED]) == {PLANTED: {path.name for path in tmp_path.iterdir()}}

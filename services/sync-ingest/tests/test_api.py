"""The routes over a real PostgreSQL: a batch in, what became of it out."""

import asyncio
from datetime import date
from hashlib import blake2b
from io import BytesIO
from typing import Annotated
from uuid import UUID

import httpx
import msgspec
import psycopg
import pytest
from chassis.clock import SystemClock, uuid7
from chassis.web.commands import stated_in
from chassis.write.deciding import CommandContext, CommandKeyReused, Refusal
from chassis.write.store import Command
from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse
from sync_ingest.api import create_router
from sync_ingest.archive.archive import Archive
from sync_ingest.archive.connection import SourceBusy
from sync_ingest.batches import BatchFile, IngestService, Turns
from sync_ingest.domain.records import (
    AccountClosedRecord,
    AccountRecord,
    CardRecord,
    ControlRecord,
    HolderRecord,
    HoldersRecord,
    ListedHolder,
    LoanRecord,
    PartyRecord,
    Posting,
    StandingOrderRecord,
)
from sync_ingest.opening import IngestPool
from sync_ingest.runs.results import FeedContent
from sync_ingest.settings import SyncIngestSettings

CREDITS = 1_250
DAY = date(2026, 3, 2)
GOOD = b'{"record":"posting","account":"A1","core_transaction_id":"t1","amount_minor":1250,"currency":"CNY","booked_on":"2026-03-02"}\n'
BROKEN = GOOD.replace(b"t1", b"t2").replace(b"1250", b'"12..34"')
MAPPING = (
    'currency = "CNY"\n[columns]\naccount="acc"\ncore_transaction_id="ref"\nbooked_on="day"\namount="amt"\n'
)
CSV = b"acc,ref,day,amt\nA1,r1,2026-03-02,7.50\nA1,r2,2026-03-02,-2.25\n"


class Open:
    """Dependencies that let everybody in: the real ones are the chassis's, and tested there."""

    @staticmethod
    async def caller() -> str:
        return "teller-7"

    @staticmethod
    async def commanding(
        key: Annotated[str, Header(alias="Idempotency-Key")],
        actor: Annotated[str, Header(alias="Actor")] = "teller-7",
        request: Request = None,
    ) -> CommandContext:
        stated = {} if request is None else await stated_in(request)
        now = SystemClock().now()
        return CommandContext(
            actor=actor,
            now=now,
            command_id=uuid7(now),
            post="teller",
            idempotency_key=key,
            client_address="10.0.0.7",
            reason=stated.get("reason"),
        )


@pytest.fixture
def service(postgres_url, data):
    pool = IngestPool(SyncIngestSettings(postgres_url=postgres_url, data=data))
    found = IngestService(pool.opened)
    yield found
    found.close()
    pool.close()


@pytest.fixture
async def client(service):
    app = FastAPI()

    @app.exception_handler(Refusal)
    async def refused(_: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse({"code": refusal.code, "detail": str(refusal)}, refusal.status)

    app.include_router(create_router(service, Open, batch_bytes_max=10_000))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://ingest") as found:
        yield found


def keyed(key):
    return {"Idempotency-Key": key}


async def post(client, source, content, key="k1", **parameters):
    return await client.post(
        "/ingest/batches",
        params={"source": source} | parameters,
        content=content,
        headers=keyed(f"{source}-{key}"),
    )


async def test_a_batch_is_booked_and_certified_and_the_same_request_has_the_same_answer(client, source):
    first = await post(client, source, GOOD + BROKEN)
    assert first.status_code == 201
    taken = first.json()
    assert {
        name: taken[name] for name in ("records", "posted", "duplicates", "quarantined", "certificate")
    } == {
        "records": 2,
        "posted": 1,
        "duplicates": 0,
        "quarantined": 1,
        "certificate": "AMBER",
    }
    assert first.headers["Consistency-Token"] == f"ingest-{taken['position']}"
    assert (await post(client, source, GOOD + BROKEN)).json() == taken
    other_key = (await post(client, source, GOOD + BROKEN, key="k2")).json()
    assert (other_key["posted"], other_key["duplicates"], other_key["position"]) == (0, 1, taken["position"])


@pytest.mark.requirement("R091")
async def test_events_name_who_brought_the_batch(client, source, ingest):
    await post(client, source, GOOD)
    meta = msgspec.json.decode(
        ingest.ledger._recorder.read_stream(ingest.ids.account(source, "A1"))[-1].body
    )["meta"]
    assert (meta["actor"], meta["post"], meta["client_address"]) == ("teller-7", "teller", "10.0.0.7")
    assert meta["trace"]["traceparent"]


async def test_connections_that_were_cut_meanwhile_are_no_concern_of_the_caller(client, source, postgres_url):
    for number in range(3):
        answer = await post(client, source, GOOD.replace(b"t1", b"t%d" % number), key=f"k{number}")
        assert (answer.status_code, answer.json()["posted"]) == (201, 1)
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )


async def test_a_key_is_for_one_request(client, source):
    await post(client, source, GOOD)
    other = await post(client, source, BROKEN)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency-key-reused")


def unkeyed(*parts):
    """How a version before remembered a request."""
    hasher = blake2b(digest_size=32)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big") + part)
    return hasher.digest()


async def test_what_is_remembered_of_a_request_cannot_be_found_by_trying_what_it_may_have_held(
    service, source, postgres_url
):
    context = await Open.commanding(source, "teller-7")
    asked = [source, [BatchFile("f", GOOD)]]
    first = await service.batch(context, *asked, format="canonical", mapping=None)
    plain = unkeyed(b"batch", source.encode(), b"canonical", b"", b"f", GOOD)
    with psycopg.connect(postgres_url) as connection:
        kept = connection.execute(
            "select fingerprint from store_ingest.commands where key = %(key)s"
            " union all select fingerprint from ingest.intakes where request = %(key)s",
            {"key": context.key},
        ).fetchall()
    assert len(kept) == 2
    assert all(fingerprint not in {plain, plain[:16]} for (fingerprint,) in kept)
    again = await service.batch(context, *asked, format="canonical", mapping=None)
    assert again["certificate_id"] == first["certificate_id"]


async def test_a_request_that_a_version_before_answered_has_the_same_answer(service, ingest, source):
    context = await Open.commanding(source, "teller-7")
    plain = unkeyed(b"batch", source.encode(), b"canonical", b"", b"f", GOOD)
    content = FeedContent("f", lambda: BytesIO(GOOD))
    before = ingest.run(source, [content], format="canonical", command=Command(context.key, plain))
    head = ingest.ledger.head_position()
    again = await service.batch(context, source, [BatchFile("f", GOOD)], format="canonical", mapping=None)
    assert (again["certificate_id"], ingest.ledger.head_position()) == (str(before.certificate), head)
    with pytest.raises(CommandKeyReused):
        await service.batch(context, source, [BatchFile("f", BROKEN)], format="canonical", mapping=None)


async def test_a_csv_comes_as_a_form_with_its_mapping(client, source):
    answer = await client.post(
        "/ingest/batches",
        data={"source": source, "format": "csv", "mapping": MAPPING},
        files=[("file", ("a.csv", CSV)), ("file", ("b.csv", CSV.replace(b"r1", b"r3")))],
        headers=keyed(source),
    )
    assert answer.status_code == 201, answer.text
    taken = answer.json()
    assert (taken["records"], taken["posted"], taken["duplicates"]) == (4, 3, 1)
    assert (taken["credits_minor"], taken["debits_minor"], len(taken["intake_ids"])) == (1500, 225, 2)


@pytest.mark.parametrize(
    ("parameters", "content", "status", "code"),
    [
        ({"source": "a:b"}, GOOD, 422, "source-name-invalid"),
        ({"format": "mt999"}, GOOD, 422, "format-unknown"),
        ({"format": "topic"}, GOOD, 422, "format-unknown"),
        ({"format": "csv"}, CSV, 422, "mapping-refused"),
        ({"format": "csv", "mapping": "x ="}, CSV, 422, "mapping-refused"),
        ({"format": "csv", "mapping": f'encoding = "undefined"\n{MAPPING}'}, CSV, 422, "mapping-refused"),
        ({"format": "csv", "mapping": f'encoding = "rot13"\n{MAPPING}'}, CSV, 422, "mapping-refused"),
        ({}, b"x" * 10_001, 413, "batch-oversized"),
    ],
)
async def test_what_is_no_batch_is_refused_with_its_reason(client, source, parameters, content, status, code):
    answer = await post(client, **({"source": source, "content": content} | parameters))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    corrected = await post(client, source, GOOD, key="k1")
    assert corrected.status_code == 201


async def test_a_batch_names_its_source_and_its_key(client, source):
    nameless = await client.post("/ingest/batches", content=GOOD, headers=keyed(source))
    assert (nameless.status_code, nameless.json()["code"]) == (422, "batch-malformed")
    keyless = await client.post("/ingest/batches", params={"source": source}, content=GOOD)
    assert 400 <= keyless.status_code < 500


async def test_an_empty_batch_is_set_aside_like_an_empty_file(client, source):
    taken = (await post(client, source, b"")).json()
    assert (taken["records"], taken["quarantined"]) == (1, 1)


async def test_quarantine_is_read_page_by_page_and_released_once(client, source):
    await post(client, source, b"".join(BROKEN.replace(b"t2", b"t%d" % n) for n in range(2, 7)))
    pages, after = [], {}
    while True:
        page = (await client.get("/ingest/quarantine", params={"source": source, "limit": 2} | after)).json()
        pages.append(page["items"])
        if page["next"] is None:
            break
        after = {"after": page["next"]}
    entries = [entry for page in pages for entry in page]
    assert [entry["line"] for entry in entries] == [1, 2, 3, 4, 5]
    assert {(entry["reason"], entry["column"]) for entry in entries} == {("amount-malformed", "amount_minor")}
    path = f"/ingest/quarantine/{entries[0]['id']}/release"
    repair = {"record": msgspec.json.decode(GOOD), "reason": "as the branch says"}
    released = await client.post(path, json=repair, headers=keyed(f"{source}-r"))
    assert (released.status_code, released.json()["posted"]) == (201, 1)
    same = await client.post(path, json=repair, headers=keyed(f"{source}-r"))
    assert same.json() == released.json()
    again = await client.post(path, json=repair, headers=keyed(f"{source}-r2"))
    assert (again.status_code, again.json()["code"]) == (409, "already-released")
    waiting = await client.get("/ingest/quarantine", params={"source": source, "status": "waiting"})
    assert len(waiting.json()["items"]) == 4
    unknown = await client.post(
        f"/ingest/quarantine/{UUID(int=5)}/release", json=repair, headers=keyed(f"{source}-r3")
    )
    assert (unknown.status_code, unknown.json()["code"]) == (404, "quarantine-unknown")


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (PartyRecord(party="P", born_on=DAY), "born_on"),
        (AccountRecord(account="A", opened_on=DAY), "opened_on"),
        (AccountClosedRecord(account="A", closed_on=DAY), "closed_on"),
        (HolderRecord(account="A", party="P", role="owner", held_from=DAY), "held_from"),
        (HoldersRecord(account="A", holders=(ListedHolder("P", "owner"),), listed_on=DAY), "listed_on"),
        (CardRecord(card="C", account="A", issued_on=DAY), "issued_on"),
        (
            LoanRecord(
                loan="L",
                account="A",
                granted_on=DAY,
                amount_minor=1,
                currency="CNY",
                duration_months=1,
                payment_minor=1,
            ),
            "granted_on",
        ),
        (StandingOrderRecord(order="S", account="A", amount_minor=1, currency="CNY"), "currency"),
        (ControlRecord(records=0, currency="CNY"), "currency"),
        (
            Posting(account="A", core_transaction_id=None, amount_minor=1, currency="CNY", booked_on=DAY),
            "booked_on",
        ),
    ],
    ids=lambda each: type(each).__name__,
)
async def test_a_record_of_every_kind_is_released(client, source, record, field):
    right = msgspec.to_builtins(record)
    await post(client, source, msgspec.json.encode(right | {field: "2026-13-45"}))
    [entry] = (await client.get("/ingest/quarantine", params={"source": source})).json()["items"]
    released = await client.post(
        f"/ingest/quarantine/{entry['id']}/release",
        json={"record": right, "reason": "as the branch says"},
        headers=keyed(f"{source}-r"),
    )
    assert released.status_code == 201, released.json()
    left = await client.get("/ingest/quarantine", params={"source": source, "status": "waiting"})
    assert left.json()["items"] == []


async def test_certificates_are_read_newest_first(client, source):
    ids = [(await post(client, source, GOOD.replace(b"t1", b"t%d" % n), key=n)).json() for n in range(3)]
    first = (await client.get("/ingest/certificates", params={"source": source, "limit": 2})).json()
    rest = (
        await client.get("/ingest/certificates", params={"source": source, "after": first["next"]})
    ).json()
    found = [each["certificate_id"] for each in first["items"] + rest["items"]]
    assert found == [each["certificate_id"] for each in reversed(ids)]
    (line,) = first["items"][0]["totals"]
    assert (line["opening_minor"], line["credits_minor"], line["closing_minor"]) == (2500, 1250, 3750)
    one = await client.get(f"/ingest/certificates/{found[0]}")
    assert one.json() == first["items"][0]
    assert (await client.get(f"/ingest/certificates/{UUID(int=5)}")).status_code == 404


@pytest.mark.requirement("D07")
async def test_the_schema_for_branches_is_published(client):
    schema = (await client.get("/ingest/schema")).json()
    assert schema["$id"] == "urn:crm:feed:canonical:v1"


async def test_ten_releases_of_one_entry_at_once_book_it_once(client, source, ingest):
    await post(client, source, BROKEN)
    (entry,) = (await client.get("/ingest/quarantine", params={"source": source})).json()["items"]

    async def release(number):
        repair = {"record": msgspec.json.decode(GOOD.replace(b"t1", b"n%d" % number)), "reason": "said so"}
        return await client.post(
            f"/ingest/quarantine/{entry['id']}/release",
            json=repair,
            headers={**keyed(f"{source}-{number}"), "Actor": f"teller-{number}"},
        )

    answers = await asyncio.gather(*map(release, range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 9
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"already-released"}
    assert sum(ingest.archive.totals.balances(source).values()) == 1250


async def test_a_repair_that_is_refused_answers_so_and_may_be_corrected_under_its_key(client, source):
    await post(client, source, BROKEN)
    (entry,) = (await client.get("/ingest/quarantine", params={"source": source})).json()["items"]
    path, record = f"/ingest/quarantine/{entry['id']}/release", msgspec.json.decode(GOOD)
    for body, code in (
        ({"record": {"record": "party", "party": "P1"}, "reason": "x"}, "repair-refused"),
        ({"record": msgspec.json.decode(BROKEN), "reason": "x"}, "repair-refused"),
        ({"records": [record] * 5, "reason": "x"}, "repair-refused"),
    ):
        refused = await client.post(path, json=body, headers=keyed(f"{source}-r"))
        assert (refused.status_code, refused.json()["code"]) == (422, code)
    for body in (
        {"record": record},
        {"record": record, "reason": " "},
        {"reason": "x"},
        {"record": record, "records": [record], "reason": "x"},
    ):
        assert (await client.post(path, json=body, headers=keyed(f"{source}-r"))).status_code == 422
    released = await client.post(path, json={"record": record, "reason": "x"}, headers=keyed(f"{source}-r"))
    assert (released.status_code, released.json()["posted"]) == (201, 1)


async def test_a_large_release_is_proposed_by_one_person_and_approved_by_another(client, source):
    await post(client, source, BROKEN)
    (entry,) = (await client.get("/ingest/quarantine", params={"source": source})).json()["items"]
    path, record = f"/ingest/quarantine/{entry['id']}", msgspec.json.decode(GOOD) | {"amount_minor": 10**15}
    body = {"record": record, "reason": "the source named the amount"}
    proposed = await client.post(f"{path}/release", json=body, headers=keyed(f"{source}-p"))
    assert (proposed.status_code, proposed.json()["amounts_minor"]) == (202, {"CNY": 10**15})
    again = await client.post(f"{path}/release", json=body, headers=keyed(f"{source}-p"))
    assert (again.status_code, again.json()) == (202, proposed.json())
    (listed,) = (await client.get("/ingest/quarantine", params={"source": source})).json()["items"]
    assert (listed["status"], listed["proposal"]) == ("waiting", proposed.json())
    approval = {"repair": proposed.json()["repair"], "reason": "compared with the statement"}
    own = await client.post(f"{path}/approve", json=approval, headers=keyed(f"{source}-a"))
    assert (own.status_code, own.json()["code"]) == (403, "second-person-needed")
    other = {**keyed(f"{source}-a"), "Actor": "teller-8"}
    approved = await client.post(f"{path}/approve", json=approval, headers=other)
    assert (approved.status_code, approved.json()["posted"]) == (201, 1)
    assert (await client.post(f"{path}/approve", json=approval, headers=other)).json() == approved.json()


async def test_a_proposed_release_is_rejected_by_another_person_or_withdrawn_by_its_proposer(client, source):
    await post(client, source, BROKEN)
    (entry,) = (await client.get("/ingest/quarantine", params={"source": source})).json()["items"]
    path, record = f"/ingest/quarantine/{entry['id']}", msgspec.json.decode(GOOD) | {"amount_minor": 10**15}
    repair = {"record": record, "reason": "the source named the amount"}
    other = {"Actor": "teller-8"}
    for number, (verb, may, may_not, code) in enumerate(
        (
            ("reject", keyed(f"{source}-1") | other, keyed(f"{source}-2"), "second-person-needed"),
            ("withdraw", keyed(f"{source}-3"), keyed(f"{source}-4") | other, "proposer-needed"),
        )
    ):
        proposed = await client.post(f"{path}/release", json=repair, headers=keyed(f"{source}-p{number}"))
        said = {"repair": proposed.json()["repair"], "reason": "compared with the statement"}
        assert (
            await client.post(f"{path}/{verb}", json={"repair": said["repair"]}, headers=may)
        ).status_code == 422
        refused = await client.post(f"{path}/{verb}", json=said, headers=may_not)
        assert (refused.status_code, refused.json()["code"]) == (403, code)
        ended = await client.post(f"{path}/{verb}", json=said, headers=may)
        assert ended.status_code == 200, ended.text
        assert ended.headers["Consistency-Token"] == f"ingest-{ended.json()['position']}"
        assert (await client.post(f"{path}/{verb}", json=said, headers=may)).json() == ended.json()
        (listed,) = (await client.get("/ingest/quarantine", params={"source": source})).json()["items"]
        assert (listed["status"], listed["proposal"]) == ("waiting", None)


async def test_an_entry_is_dismissed_with_a_reason(client, source):
    await post(client, source, BROKEN)
    (entry,) = (await client.get("/ingest/quarantine", params={"source": source})).json()["items"]
    path = f"/ingest/quarantine/{entry['id']}/dismiss"
    assert (await client.post(path, json={}, headers=keyed(f"{source}-d"))).status_code == 422
    dismissed = await client.post(path, json={"reason": "a test of theirs"}, headers=keyed(f"{source}-d"))
    assert dismissed.status_code == 200
    same = await client.post(path, json={"reason": "a test of theirs"}, headers=keyed(f"{source}-d"))
    assert same.json() == dismissed.json()
    again = await client.post(path, json={"reason": "a test of theirs"}, headers=keyed(f"{source}-d2"))
    assert (again.status_code, again.json()["code"]) == (409, "already-dismissed")
    gone = await client.get("/ingest/quarantine", params={"source": source, "status": "dismissed"})
    assert [item["id"] for item in gone.json()["items"]] == [entry["id"]]


async def test_keys_of_two_actors_never_meet(client, source):
    first = await client.post(
        "/ingest/batches",
        params={"source": source},
        content=GOOD,
        headers={"Idempotency-Key": f"b|{source}", "Actor": "a"},
    )
    second = await client.post(
        "/ingest/batches",
        params={"source": source},
        content=GOOD.replace(b"t1", b"t2"),
        headers={"Idempotency-Key": source, "Actor": "a|b"},
    )
    assert (first.status_code, second.status_code) == (201, 201)
    assert (first.json()["posted"], second.json()["posted"]) == (1, 1)


async def test_the_same_batch_sent_twice_at_once_is_booked_once_and_has_one_answer(client, source):
    one, two = await asyncio.gather(post(client, source, GOOD), post(client, source, GOOD))
    assert (one.status_code, two.status_code) == (201, 201)
    assert one.json() == two.json()
    assert one.json()["posted"] == 1


async def test_two_requests_under_one_key_of_which_the_first_is_refused_are_no_fault_of_ours(client, source):
    wrong, right = await asyncio.gather(
        post(client, source, GOOD, format="csv", mapping="x ="), post(client, source, GOOD)
    )
    assert (wrong.status_code, right.status_code) == (422, 201)


async def test_batches_of_a_busy_source_block_neither_readers_nor_other_sources(
    client, source, postgres_url, ingest
):
    with Archive.connect(postgres_url, ingest.ids, ingest.elapsed) as other, other.locked(source):
        busy = [
            asyncio.create_task(post(client, source, GOOD.replace(b"t1", b"t%d" % n), key=n))
            for n in range(8)
        ]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(5):
            assert (await client.get("/ingest/certificates", params={"source": source})).status_code == 200
            assert (await client.get("/ingest/quarantine", params={"source": source})).status_code == 200
            assert (await post(client, f"{source}-other", GOOD)).status_code == 201
        assert not any(task.done() for task in busy)
    answers = await asyncio.gather(*busy)
    assert [answer.status_code for answer in answers] == [201] * 8


async def test_who_waits_too_long_for_a_busy_source_is_told_so(postgres_url, data, source):
    turns = Turns(runs_max=1, wait_seconds_max=0.05)
    async with turns.of(source):
        with pytest.raises(SourceBusy):
            async with turns.of(source):
                pass
        with pytest.raises(SourceBusy):
            async with turns.of(f"{source}-other"):
                pass
    async with turns.of(source):
        assert turns._sources.keys() == {source}
    assert turns._sources == {}


@pytest.mark.parametrize(
    ("fields", "file_field"),
    [
        ({"colour": "red"}, "file"),
        ({"source": ["a", "b"]}, "file"),
        ({}, "attachment"),
        ({"mapping": "x" * 65_537}, "file"),
    ],
)
async def test_a_form_holds_what_the_schema_names_and_nothing_else(client, source, fields, file_field):
    answer = await client.post(
        "/ingest/batches",
        params={"source": source},
        data=fields,
        files=[(file_field, ("a.jsonl", GOOD))],
        headers=keyed(source),
    )
    assert answer.status_code in {413, 422}
    assert answer.json()["code"] in {"batch-malformed", "batch-oversized"}


async def test_a_form_is_held_in_memory_and_written_to_no_disk(client, source, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there is no such folder"))
    content = GOOD * 60
    answer = await client.post(
        "/ingest/batches",
        params={"source": source},
        files=[("file", ("a.jsonl", content))],
        headers=keyed(source),
    )
    assert (answer.status_code, answer.json()["records"]) == (201, 60)


async def test_a_cursor_that_no_page_gave_out_is_refused(client, source):
    for path in ("/ingest/quarantine", "/ingest/certificates"):
        for wrong in ("12", "bm90IG91cnM"):
            answer = await client.get(path, params={"after": wrong})
            assert (answer.status_code, answer.json()["code"]) == (400, "cursor-invalid")


async def test_control_totals_beside_a_batch_are_checked_and_a_difference_can_be_acknowledged(client, source):
    totals = {"control_records": 1, "control_credits_minor": 5_000, "control_currency": "CNY"}
    right = await post(client, f"{source}-right", GOOD, **(totals | {"control_credits_minor": CREDITS}))
    assert (right.json()["certificate"], right.json()["reasons"]) == ("GREEN", [])
    wrong = (await post(client, source, GOOD, **totals)).json()
    assert (wrong["certificate"], wrong["reasons"]) == ("RED", ["control-total-differs"])
    found = (await client.get(f"/ingest/certificates/{wrong['certificate_id']}")).json()
    (problem,) = found["problems"]
    assert (problem["code"], problem["expected"], problem["found"], problem["new"]) == (
        "control-total-differs",
        5_000,
        CREDITS,
        True,
    )
    where = f"/ingest/certificates/{found['certificate_id']}/acknowledge"
    asked = {"reason": "the branch stated yesterday's sum", "contradictions": [problem["contradiction"]]}
    done = await client.post(where, json=asked, headers=keyed(f"{source}-ack"))
    assert (done.status_code, done.json()["status"], done.json()["acknowledges"]) == (
        201,
        "GREEN",
        found["certificate_id"],
    )
    assert (await client.post(where, json=asked, headers=keyed(f"{source}-ack"))).json() == done.json()
    again = await client.post(where, json=asked, headers=keyed(f"{source}-ack2"))
    assert (again.status_code, again.json()["code"]) == (409, "nothing-to-acknowledge")


@pytest.mark.parametrize(
    "fields",
    [
        {"control_credits_minor": 5},
        {"control_records": -1},
        {"control_records": "1_0"},
        {"control_records": " 1"},
        {"control_records": "1.0"},
        {"control_records": "１"},
        {"control_currency": "CNY"},
    ],
)
async def test_control_totals_that_are_none_are_refused(client, source, fields):
    assert (await post(client, source, GOOD, **fields)).status_code == 422


async def test_nobody_sends_a_batch_under_the_reserved_source(client):
    refused = await post(client, "unattributed", GOOD, key="reserved")
    assert (refused.status_code, refused.json()["code"]) == (422, "source-reserved")

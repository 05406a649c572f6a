"""`crm verify` over real stores: green when all went well, and for every way to break an invariant, red and named."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from aiokafka.admin import AIOKafkaAdminClient
from chassis.clock import uuid7
from chassis.messaging.records import Record
from chassis.messaging.transport import KafkaPublisher, ensure_topics, read_to_end
from chassis.privacy.keys import KeyRing
from chassis.read.mongo import Mongo
from chassis.relay import RelayRole
from chassis.relay.operating import republish, try_again
from chassis.write.events import StoredEvent
from contracts.envelope import Envelope, Watermark, unwrap
from contracts.topics import EVENTS, INGEST_EVENTS, TOPICS, Topic
from crm_cli import verify
from crm_cli.contexts import CONTEXTS
from crm_cli.status import read_status
from crm_cli.verify_parts import Checked, WorkerLost, all_checked, parts_of
from crm_cli.verify_report import Report
from customer.settings import CustomerSettings
from sync_ingest.domain.records import HolderRecord, PartyRecord
from sync_ingest.ledger import CATALOGUE
from sync_ingest.publishing import published

from tests.support.roles import roles_of_all
from tests.support.waiting import until

from .stores import CLOCK, Bank, a_small_feed, new_database, posting
from .turning import turned

WAIT_SECONDS = 20.0


class World:
    """A bank whose feed went all the way; tests break it."""

    def __init__(self, bank: Bank) -> None:
        self.bank = bank
        known = {"postgres_url", "keys_url", "kafka_url", "mongo_url", "data", "environment"}
        self.settings = CustomerSettings(**bank.settings().model_dump(include=known))
        self.mongo = Mongo.connect(bank.mongo_url)
        self.publisher = KafkaPublisher(bank.kafka_url)
        self.last: dict[str, Any] = {}
        """What `crm status` said last."""

    async def settle(self) -> None:
        """Runs every role until all that is stored is published, shown, reacted to, and folded to timers."""
        async with self.running(*(make() for make in roles_of_all(self.settings).values())):
            await self.settled()
        await turned(self.settings)

    async def repaired(self, schema: str) -> None:
        """Waits until the relay holds nobody; it looks every other second."""
        async with self.running(*(make() for make in roles_of_all(self.settings).values())):
            await until(lambda: not self.sql(f"select from {schema}.unpublishable"))
            await self.settled()
        await turned(self.settings)

    async def relay(self, words: object = published) -> None:
        """Publishes what ingest has stored, and nothing else happens."""
        role = RelayRole(
            "ingest",
            "store_ingest",
            words,
            CATALOGUE,
            postgres_url=self.bank.postgres_url,
            kafka_url=self.bank.kafka_url,
        )
        async with self.running(role):
            head = self.head("store_ingest")
            await until(lambda: role.relay.position >= head)

    @asynccontextmanager
    async def running(self, *hosted: object) -> AsyncIterator[None]:
        stopping = asyncio.Event()
        tasks = [asyncio.create_task(role.run(stopping)) for role in hosted]
        try:
            yield
        finally:
            stopping.set()
            await asyncio.gather(*tasks)

    async def settled(self) -> None:
        await until(self._settled, what=lambda: self.last)

    async def _settled(self) -> bool:
        found = self.last = await read_status(self.bank.settings())
        views = [group for group in found["groups"].values() if "view" in group]
        heads = {name: context["head"] for name, context in found["contexts"].items()}
        return (
            found["outbox"] == 0
            and found["lag"] == 0
            and all(
                each["positions"].get(name, 0) >= heads[name] for each in views for name in each["contexts"]
            )
        )

    def head(self, schema: str) -> int:
        return self.sql(f"select max(position) from {schema}.events")[0][0]

    async def verified(self, wait_seconds: float = 0.0, processes: int | None = None) -> Report:
        return await verify.verified(self.settings, wait_seconds=wait_seconds, processes=processes)

    def sql(self, statement: str, *values: object) -> list[tuple]:
        """As the superuser, to whom no trigger is an obstacle."""
        with psycopg.connect(self.bank.postgres_url, autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    async def records(self) -> list[Record]:
        return [r async for page in read_to_end(self.bank.kafka_url, INGEST_EVENTS.name) for r in page]

    async def generation(self, view: str = "asset_panorama") -> dict:
        return next(one for one in await self.mongo.find("view_generations") if one["view"] == view)

    async def prefix(self, view: str = "asset_panorama") -> str:
        """What the collections of a view begin with."""
        return f"{view}_v{(await self.generation(view))['number']}_"

    async def close(self) -> None:
        await self.mongo.close()
        await self.publisher.close()


def problems(report: Report) -> dict[str, list[str]]:
    found = report.as_json()["invariants"]
    return {name: each["problems"] for name, each in found.items() if not each["holds"]}


@pytest.fixture
async def bank(postgres_url, kafka_url, mongo_url, tmp_path) -> Bank:
    """Stores of this test alone: databases of its own, and topics emptied."""
    await emptied(kafka_url, *EVENTS.values())
    await ensure_topics(kafka_url, TOPICS)
    database = f"verify_{uuid7(CLOCK.now()).hex}"
    return Bank(new_database(postgres_url), kafka_url, mongo_url.replace("/?", f"/{database}?"), tmp_path)


@pytest.fixture
async def world(bank):
    world = World(bank)
    await asyncio.to_thread(bank.take, "branch", *a_small_feed())
    await world.settle()
    yield world
    await world.mongo.drop_database()
    await world.close()


async def emptied(kafka_url: str, *topics: Topic) -> None:
    """Deletes topics and waits until they are gone."""
    names = [topic.name for topic in topics]
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_url)
    await admin.start()
    try:
        await admin.delete_topics([name for name in await admin.list_topics() if name in names])

        async def gone() -> bool:
            return not set(names) & set(await admin.list_topics())

        await until(gone, what=f"{names} are gone")
    finally:
        await admin.close()


async def test_verify_is_green_also_where_records_came_twice(world):
    report = await world.verified(WAIT_SECONDS)
    assert problems(report) == {}
    assert report.green
    assert all(report.checked[name] > 0 for name in ("I1", "I2", "I3", "I4", "I5", "I7"))
    assert report.figures["contexts"]["ingest"]["repeated_records"] == 0
    view = report.figures["views"]["asset_panorama"]
    assert (view["documents"], view["differing"]) == (39 + 3 + 2 + 1, 0)
    assert report.figures["money"] == {"CNY": str(sum(100 * n for n in range(1, 40)))}

    apart = await world.verified(WAIT_SECONDS, processes=3)
    assert apart.figures["views"] == report.figures["views"]
    assert dict(apart.checked) == dict(report.checked) | {"I6": report.checked["I6"] + 2}
    assert apart.green

    world.sql("update store_ingest.relay set position = 0")
    await world.settle()
    await asyncio.to_thread(world.bank.take, "branch", posting("late", "A1", 7))
    await world.settle()
    again = await world.verified(WAIT_SECONDS)
    assert problems(again) == {}
    assert again.figures["contexts"]["ingest"]["repeated_records"] > 40
    assert again.checked["I6"] == report.checked["I6"] + 2, "the first one left a checkpoint of each context"


async def test_verify_is_green_while_more_comes_in(world):
    done = threading.Event()

    def take() -> None:
        for batch in range(1_000):
            if done.is_set():
                return
            world.bank.take("branch", *(posting(f"L{batch}-{n}", f"A{n % 3 + 1}", n) for n in range(1, 20)))

    taking = threading.Thread(target=take)
    heads = []
    async with world.running(*(make() for make in roles_of_all(world.settings).values())):
        taking.start()
        for _ in range(3):
            report = await world.verified(WAIT_SECONDS)
            assert problems(report) == {}
            heads.append(report.figures["contexts"]["ingest"]["head"])
        done.set()
        await asyncio.to_thread(taking.join)
    assert heads[0] < heads[1] < heads[2]


async def test_an_event_that_is_not_published_or_not_in_a_view_is_reported(world):
    await asyncio.to_thread(world.bank.take, "branch", posting("late", "A1", 7))
    found = problems(await world.verified())
    assert "not every view has reached" in found["I1"][0]
    assert any("is not on the topic" in each for each in found["I1"])
    assert any("is missing" in each for each in found["I4"])


async def test_a_position_that_was_saved_before_its_event_was_published_is_found(world):
    await asyncio.to_thread(world.bank.take, "branch", posting("late", "A1", 7))
    world.sql("update store_ingest.relay set position = (select max(position) from store_ingest.events)")
    assert "was saved as published" in problems(await world.verified())["I9"][0]


async def test_a_watermark_before_the_events_that_it_covers_is_found(world):
    head = world.sql("select max(position) from store_ingest.events")[0][0]
    mark = Watermark("ingest", head + 1000, CLOCK.now()).headers(0)
    await world.publisher.publish([Record(INGEST_EVENTS.name, n, b"", mark, b"") for n in range(6)])
    await asyncio.to_thread(world.bank.take, "branch", posting("late", "A1", 7))
    await world.relay()
    found = problems(await world.verified())
    assert "precedes" in found["I9"][0]
    assert any("when_party_described" in each and "records not read" in each for each in found["I1"])


async def test_a_record_without_a_stored_event_or_unlike_it_is_found(world):
    records = await world.records()
    one = next(r for r in records if isinstance(unwrap(r.headers), Envelope) and b"amount_minor" in r.value)
    forged = one._replace(value=one.value.replace(b'"amount_minor":', b'"amount_minor":9'))
    envelope = unwrap(one.headers)
    foreign = one._replace(
        headers=replace(envelope, position=envelope.position, subject=UUID(int=1)).headers()
    )
    await world.publisher.publish([forged, foreign, one._replace(headers=[("what", b"ever")])])
    found = problems(await world.verified())["I7"]
    assert any("body differs" in each for each in found)
    assert any("headers differ" in each and "ce_subject" in each for each in found)
    assert any("not an event of ours" in each for each in found)


async def test_a_missing_a_changed_and_a_surplus_document_are_found(world):
    prefix = await world.prefix()
    accounts = sorted(await world.mongo.find(f"{prefix}accounts"), key=lambda each: each["_id"])
    movement = (await world.mongo.find(f"{prefix}movements", limit=1))[0]
    await world.mongo.delete(f"{prefix}accounts", {"_id": accounts[0]["_id"]})
    changed = {"$set": {"balances.CNY.minor": accounts[1]["balances"]["CNY"]["minor"] + 1}}
    await world.mongo.update(f"{prefix}accounts", {"_id": accounts[1]["_id"]}, changed)
    await world.mongo.insert_new(f"{prefix}accounts", accounts[2] | {"_id": str(UUID(int=5))})
    await world.mongo.insert_new(f"{prefix}movements", movement | {"_id": "twice"})
    report = await world.verified(processes=2)
    found = problems(report)
    assert any(f"accounts {accounts[0]['_id']} is missing" in each for each in found["I4"])
    assert any(
        f"accounts {accounts[1]['_id']} differs" in each and "balances" in each for each in found["I4"]
    )
    assert any("comes from no event" in each for each in found["I4"])
    assert any("documents in movements: expected 39, found 40" in each for each in found["I4"])
    assert any(accounts[1]["_id"] in each and "closing" in each for each in found["I5"])
    assert any("sums of all movements" in each for each in found["I5"])
    view = report.figures["views"]["asset_panorama"]
    assert view["differing"] == 2


async def test_a_parked_subject_makes_verify_red(world):
    stream = world.sql("select stream_id from store_ingest.events where name = 'account-opened' limit 1")[0][
        0
    ]
    group = (await world.mongo.find("view_generations"))[0]["group"]
    group = next(
        g["group"] for g in await world.mongo.find("view_generations") if g["view"] == "asset_panorama"
    )
    await world.mongo.insert_new(
        "parked",
        {
            "_id": f"{group}|{stream.hex}",
            "group": group,
            "subject": stream,
            "context": "ingest",
            "type": "posting.booked",
            "sequence": 2,
            "position": 1,
            "reason": "planted",
            "parked_at": CLOCK.now(),
            "held": 1,
            "revision": 1,
            "wanted": None,
        },
    )
    found = problems(await world.verified())["I4"]
    assert any(f"subject {stream} is parked since its event 2: planted" in each for each in found)


@pytest.mark.requirement("D05", "M04")
async def test_a_change_of_the_store_is_found(world):
    assert (await world.verified()).green
    world.sql("alter table store_ingest.events disable trigger all")
    world.sql("grant update on store_ingest.events to crm_ingest_writer")
    world.sql("drop index store_ingest.events_identity")
    stream, version, name, body, identity = world.sql(
        "select stream_id, version, name, body, identity from store_ingest.events"
        " where name = 'posting-booked' order by position limit 1"
    )[0]
    changed = body.replace(b'"amount_minor":', b'"amount_minor":9')
    world.sql(
        "update store_ingest.events set body = %s where stream_id = %s and version = %s",
        changed,
        stream,
        version,
    )
    twice = StoredEvent(stream, 900, name, body, identity)
    world.sql(
        "insert into store_ingest.events (stream_id, version, name, body, identity) values (%s, %s, %s, %s, %s)",
        twice.stream_id,
        twice.version,
        twice.name,
        twice.body,
        twice.identity,
    )
    world.sql(
        "insert into store_ingest.commands (key, fingerprint, stream_id, version, event_count)"
        " values ('k', '', %s, 4711, 1)",
        stream,
    )
    found = problems(await world.verified())
    assert any("taken by 2 events" in each for each in found["I2"])
    assert any("is booked 2 times" in each for each in found["I2"])
    assert any(f"stream {stream} has" in each for each in found["I3"])
    assert any(str(stream) in each and "closing" in each for each in found["I5"])
    assert any("is not what it was when last verified" in each for each in found["I6"])
    assert any("refuse_change of store_ingest.events is missing or disabled" in each for each in found["I6"])
    assert any("may UPDATE store_ingest.events" in each for each in found["I6"])
    assert any("body differs" in each for each in found["I7"])
    assert any("command k was acknowledged" in each for each in found["I8"])


async def test_what_cannot_be_read_is_named_and_all_else_is_checked(world):
    """Events that are no JSON, of another shape, name or version, and documents that no view would write."""
    harms = {
        "posting-booked": [b"", b"{", b"\x00\xff", b'{"meta":{},"data":{}}'],
        "reconciliation-certified": [b"null"],
        "intake-received": [b"[]"],
    }
    world.sql("alter table store_ingest.events disable trigger all")
    change, unread = "update store_ingest.events set {} = %s where stream_id = %s and version = %s", []
    for name, bodies in harms.items():
        events = world.sql(
            "select stream_id, version from store_ingest.events where name = %s order by position", name
        )
        for event, body in zip(events, bodies, strict=False):
            world.sql(change.format("body"), body, *event)
            unread.append((event, name))
    newer, renamed = world.sql(
        "select stream_id, version, body from store_ingest.events where name = 'party-described'"
    )
    world.sql(change.format("body"), newer[2].replace(b'"data":{"v":', b'"data":{"v":9'), *newer[:2])
    world.sql(change.format("name"), "party-forgotten", *renamed[:2])
    unread += [(newer[:2], "party-described"), (renamed[:2], "party-forgotten")]

    prefix = await world.prefix()
    accounts = sorted(await world.mongo.find(f"{prefix}accounts"), key=lambda each: each["_id"])
    first, second, third = (account["_id"] for account in accounts)
    movement = (await world.mongo.find(f"{prefix}movements", limit=1))[0]["_id"]
    for collection, document, changed in (
        ("accounts", first, {"_seq": "9"}),
        ("accounts", second, {"balances": "none"}),
        ("accounts", third, {"balances.CNY.minor": 1}),
        ("movements", movement, {"amount_minor": "much"}),
    ):
        await world.mongo.update(f"{prefix}{collection}", {"_id": document}, {"$set": changed})
    group = (await world.generation())["group"]
    await world.mongo.insert_new("parked", {"_id": "x", "group": group, "parked_at": 7})

    report = await world.verified(processes=2)
    found = problems(report)
    for (stream, version), name in unread:
        place = f"ingest: version {version} of {stream} ({name}) cannot be read"
        assert any(each.startswith(place) for each in found["I1"]), place
    for (stream, version), name in unread[:3]:
        assert any(f"version {version} of {stream} ({name}) cannot be read" in each for each in found["I5"])
    for invariant, named in (
        ("I4", f"accounts {first} cannot be read"),
        ("I4", f"accounts {second} differs from its fold in balances"),
        ("I4", "asset_panorama: what is parked cannot be read"),
        ("I5", f"account {first} cannot be read"),
        ("I5", f"account {second} cannot be read"),
        ("I5", f"account {third} CNY: closing"),
        ("I5", "the sums of all movements cannot be read"),
    ):
        assert any(named in each for each in found[invariant]), (named, found[invariant])
    assert set(report.figures["contexts"]) == {"customer", "ingest"}


async def test_a_live_view_that_this_command_does_not_know_makes_verify_red(world):
    await world.mongo.insert_new("views", {"_id": "tickets", "live": 1})
    found = problems(await world.verified(WAIT_SECONDS))
    assert list(found) == ["I4"]
    assert "the view tickets: known to this command" in found["I4"][0]


@pytest.mark.parametrize("processes", [1, 2])
async def test_one_flipped_byte_one_missing_event_and_one_doctored_document_are_each_found(world, processes):
    assert (await world.verified(processes=processes)).green
    prefix = await world.prefix()
    flipped, missing, doctored, gone = world.sql(
        "select stream_id, version, body, position from store_ingest.events"
        " where name = 'posting-booked' order by position limit 4"
    )
    world.sql("alter table store_ingest.events disable trigger all")
    body, at = bytearray(flipped[2]), flipped[2].index(b'"text":"k1.') + 60
    body[at] ^= 1
    of_event = "where stream_id = %s and version = %s"
    world.sql(f"update store_ingest.events set body = %s {of_event}", bytes(body), *flipped[:2])
    world.sql(f"delete from store_ingest.events {of_event}", *missing[:2])
    movements = [f"{stream}:{version:010d}" for stream, version, *_ in (flipped, missing, doctored, gone)]
    renamed = {"$set": {"stored_name": "posting-bookee"}}
    await world.mongo.update(f"{prefix}movements", {"_id": movements[2]}, renamed)
    await world.mongo.delete(f"{prefix}movements", {"_id": movements[3]})

    report = await world.verified(processes=processes)
    found = problems(report)
    assert any("the body differs from the stored event" in each for each in found["I7"])
    assert any(f"movements {movements[0]} differs from its fold in text" in each for each in found["I4"])
    assert any("the log up to position" in each for each in found["I6"])
    assert any(f"position {missing[3]} is not stored" in each for each in found["I7"])
    assert any(f"stream {missing[0]}" in each for each in found["I3"])
    assert any(f"account {missing[0]}" in each for each in found["I5"])
    assert any(f"{movements[2]} differs from its fold in stored_name" in each for each in found["I4"])
    assert any(f"movements {movements[3]} is missing" in each for each in found["I4"])
    assert report.figures["views"]["asset_panorama"]["differing"] >= 4


async def test_a_subject_that_the_relay_holds_is_named_until_it_is_repaired(world):
    await asyncio.to_thread(world.bank.take, "branch", posting("held", "A1", 7), posting("other", "A2", 7))
    [(stream, version)] = world.sql(
        "select stream_id, version from store_ingest.events where name = 'posting-booked' order by position desc limit 1"
    )

    def failing(stored: StoredEvent) -> object:
        if (stored.stream_id, stored.version) == (stream, version):
            raise ValueError("no words for it")
        return published(stored)

    await world.relay(failing)
    found = problems(await world.verified())
    assert any(
        f"subject {stream} is held by the relay" in each and "ValueError at test_verify.py:" in each
        for each in found["I1"]
    )
    assert not any("is not on the topic" in each for each in found["I1"]), "one line for the subject"
    assert "I9" not in found
    await asyncio.to_thread(world.bank.take, "branch", posting("after", "A1", 7), posting("more", "A2", 7))
    await world.relay(failing)
    assert try_again(world.bank.postgres_url, "store_ingest") == 1
    await world.settle()
    await world.repaired("store_ingest")
    assert problems(await world.verified(WAIT_SECONDS)) == {}


async def test_a_worker_that_dies_ends_the_check_with_one_line(world):
    parts = parts_of(world.settings, CONTEXTS["ingest"], 1, 1, {}, 2)
    with pytest.raises(WorkerLost, match="ended before it was done"):
        await all_checked(parts, print, check=dies)


def dies(part: object) -> Checked:
    """A worker that is killed."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


async def test_a_topic_that_lost_its_beginning_is_found_and_made_anew_from_the_store(world):
    """As docs/runbooks/rebuild.md says it."""
    await emptied(world.bank.kafka_url, INGEST_EVENTS)
    await ensure_topics(world.bank.kafka_url, TOPICS)
    await asyncio.to_thread(world.bank.take, "branch", posting("tail", "A1", 7))
    await world.relay()
    await world.mongo.drop_database()
    tail = await asyncio.to_thread(world.bank.crm, "rebuild", "asset_panorama")
    assert tail.returncode == 1
    assert b"published events are not in the topic" in tail.stderr

    await emptied(world.bank.kafka_url, INGEST_EVENTS)
    await ensure_topics(world.bank.kafka_url, TOPICS)
    republish(world.bank.postgres_url, "store_ingest", "ingest")
    await world.relay()
    await world.mongo.drop_database()
    whole = await asyncio.to_thread(world.bank.crm, "rebuild", "asset_panorama", "--json")
    assert whole.returncode == 0, whole.stderr
    assert json.loads(whole.stdout)["missing"] == 0
    await world.settle()
    assert problems(await world.verified(WAIT_SECONDS)) == {}


async def test_amounts_beyond_32_bits_are_shown_verified_and_rebuilt(bank):
    edges = [2**31 - 1, 2**31, 10**15]
    feed = [
        PartyRecord(party="P1", kind="person", name="王小明"),
        *(HolderRecord(account=f"A{at}", party="P1", role="owner") for at in range(len(edges) + 1)),
        *(posting(f"T{at}", f"A{at}", minor) for at, minor in enumerate(edges)),
        *(posting(f"S{at}", "A3", 10**15) for at in range(9)),
    ]
    total = sum(edges) + 9 * 10**15
    await asyncio.to_thread(bank.take, "branch", *feed)
    world = World(bank)
    async with world.running(*(make() for make in roles_of_all(world.settings).values())):
        await world.settled()
        await turned(world.settings)
        shown = await asyncio.to_thread(bank.crm, "panorama", "--reference", "branch:P1", "--json")
        assert shown.returncode == 0, shown.stderr
        [block] = json.loads(shown.stdout)["currencies"]
        assert block["aum"]["amount_minor"] == block["net_worth"]["amount_minor"] == total
        for _ in range(2):
            await (
                world.settled()
            )  # the views follow the generation that was rebuilt, and policies have read all
            done = await asyncio.to_thread(bank.crm, "verify", "--json", "--wait", "90")
            assert done.returncode == 0, done.stdout + done.stderr
            assert json.loads(done.stdout)["money"] == {"CNY": str(total)}
            rebuilt = await asyncio.to_thread(bank.crm, "rebuild", "asset_panorama", "--json")
            assert rebuilt.returncode == 0, rebuilt.stderr
            assert json.loads(rebuilt.stdout)["equal"] is True
    await world.close()


async def test_the_command_says_green_or_red_by_its_exit_code(bank):
    done = await asyncio.to_thread(bank.crm, "verify", "--json")
    assert (done.returncode, json.loads(done.stdout)["green"]) == (0, True), done.stderr
    await asyncio.to_thread(bank.take, "branch", posting("T", "A1", 7))
    done = await asyncio.to_thread(bank.crm, "verify", "--wait", "0")
    assert done.returncode == 1
    assert done.stdout.startswith(b"RED")
    assert b"I1   BROKEN" in done.stdout
    away = replace(bank, kafka_url="127.0.0.1:1")
    done = await asyncio.to_thread(away.crm, "verify", "--wait", "0")
    assert done.returncode == 2
    assert b"BrokerUnavailable" in done.stderr


async def test_a_key_database_of_an_earlier_time_is_found_and_an_erasure_is_not_taken_for_one(world):
    """What was sealed in between cannot be opened again, though its subject got another key since, without a word."""
    with psycopg.connect(world.bank.keys_url, autocommit=True) as connection:
        subjects = [row[0] for row in connection.execute("select subject from data_keys order by subject")]
    streams = {row[0] for row in world.sql("select distinct stream_id from store_ingest.events")}
    lost, another, erased, *_ = [subject for subject in subjects if subject in streams]
    ring = KeyRing.of(world.settings, CLOCK.monotonic)
    ring.erase([erased])
    assert problems(await world.verified(WAIT_SECONDS)) == {}
    with psycopg.connect(world.bank.keys_url, autocommit=True) as connection:
        connection.execute("delete from data_keys where subject = any(%s)", ([lost, another],))
    ring.close()
    ring = KeyRing.of(world.settings, CLOCK.monotonic)
    ring.keys_for([another])
    ring.close()
    found = problems(await world.verified(WAIT_SECONDS))
    assert set(found) == {"I10"}
    assert {str(subject) in problem for subject in (lost, another) for problem in found["I10"]} == {
        True,
        False,
    }
    assert len(found["I10"]) == 2
    assert all("is lost, and was not destroyed" in problem for problem in found["I10"])

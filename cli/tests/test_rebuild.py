"""`crm rebuild` and `crm parked` as somebody at a terminal uses them, beside the running views."""

import asyncio
import getpass
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from uuid import UUID, uuid5

import msgspec
import pytest
from chassis.clock import SystemClock
from chassis.messaging.records import Record
from chassis.messaging.transport import KafkaPublisher, ensure_topics
from chassis.read.generations import ViewReader
from chassis.read.mongo import Mongo
from chassis.read.mongo_checkpoints import parked_of
from chassis.write.operations import operations_stream
from chassis.write.store import Recorder, prepare
from contracts.envelope import Envelope, Watermark
from contracts.topics import CUSTOMER_EVENTS, TOPICS, partition_of
from crm_cli.rebuild import INTERRUPTED
from customer.bootstrap import roles as customer_roles
from customer.catalogue import CONTEXT, SCHEMA, catalogue
from customer.settings import CustomerSettings
from customer.views import VIEWS

NAMESPACE = UUID("8a7f6c1e-53a2-5d0a-9d3c-7a3d7f1f2b14")
AT = datetime(2026, 1, 5, 8, tzinfo=UTC)
CLOCK = SystemClock()
WITHIN_SECONDS = 60.0
PROGRAM = """
import typer
from crm_cli import dead_letters, parked, rebuild
app = typer.Typer(pretty_exceptions_enable=False)
for each in (dead_letters, parked, rebuild): each.register(app)
app()
"""
REGISTERED = {"kind": "person", "origin": "staff", "name": "k1.a.b"}
_NUMBERS = count(1)
_positions = count(1_000_000)


class Desk:
    """A topic to write on, views that follow it, and a terminal."""

    def __init__(self, postgres_url: str, kafka_url: str, mongo_url: str, data: Path) -> None:
        self.mongo_url = mongo_url
        self.settings = CustomerSettings(
            postgres_url=postgres_url,
            kafka_url=kafka_url,
            mongo_url=mongo_url,
            data=data,
            environment="development",
        )
        self.environment = os.environ | {
            "POSTGRES_URL": postgres_url,
            "KAFKA_URL": kafka_url,
            "MONGO_URL": mongo_url,
            "CRM_DATA": str(data),
            "CRM_ENVIRONMENT": "development",
        }
        self.publisher = KafkaPublisher(kafka_url)
        self.position = 0

    async def tell(self, subject: UUID, sequence: int, type: str, body: dict[str, object]) -> None:
        self.position = next(_positions)
        place = partition_of(subject, CUSTOMER_EVENTS.partitions)
        envelope = Envelope(
            uuid5(subject, str(sequence)), type, 1, "customer", subject, sequence, self.position, AT, AT,
            type.replace(".", "-"), subject, subject,
        )  # fmt: skip
        marks = [
            Record(
                CUSTOMER_EVENTS.name,
                number,
                b"",
                Watermark("customer", self.position, AT).headers(number),
                b"",
            )
            for number in range(CUSTOMER_EVENTS.partitions)
        ]
        event = Record(CUSTOMER_EVENTS.name, place, b"", envelope.headers(), msgspec.json.encode(body))
        await self.publisher.publish([event, *marks])

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        role, stopping = customer_roles(self.settings)["views"](), asyncio.Event()
        task = asyncio.create_task(role.run(stopping))
        try:
            yield
        finally:
            stopping.set()
            await task

    async def crm(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", PROGRAM, *arguments]
        return await asyncio.to_thread(
            subprocess.run,
            command,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture
async def desk(postgres_url, kafka_url, mongo_url, tmp_path):
    await ensure_topics(kafka_url, TOPICS)
    prepare(postgres_url, SCHEMA)
    desk = Desk(postgres_url, kafka_url, mongo_url.replace("/?", f"/desk{next(_NUMBERS)}?"), tmp_path)
    yield desk
    await desk.publisher.close()
    async with _mongo(desk) as mongo:
        await mongo.drop_database()


@asynccontextmanager
async def _mongo(desk: Desk) -> AsyncIterator[Mongo]:
    mongo = Mongo.connect(desk.mongo_url)
    yield mongo
    await mongo.close()


async def _shown(mongo: Mongo, position: int) -> bool:
    views = [view for view in VIEWS if view.name == "customers"]
    return await ViewReader(mongo, CLOCK, views).wait_for("customer", position, WITHIN_SECONDS)


@pytest.mark.requirement("D04", "M21")
async def test_a_view_is_rebuilt_beside_the_running_one_and_after_its_database_was_dropped(desk):
    await desk.tell(uuid5(NAMESPACE, "rebuilt"), 1, "customer.registered", REGISTERED)
    async with _mongo(desk) as mongo:
        async with desk.running():
            assert await _shown(mongo, desk.position)
            beside = await desk.crm("rebuild", "customers", "--json")
        assert beside.returncode == 0, beside.stderr
        first = json.loads(beside.stdout)
        assert (first["equal"], first["different"], first["resumed"]) == (True, 0, False)
        assert first["generation"] > first["replaced"]
        assert first["compared"] >= 1
        assert "catching up" in beside.stderr
        assert "/s" in beside.stderr
        await mongo.drop_database()
        again = await desk.crm("rebuild", "customers", "--json")
        assert again.returncode == 0, again.stderr
        second = json.loads(again.stdout)
        assert (second["hash"], second["replaced"], second["equal"]) == (first["hash"], None, None)
        assert second["generation"] > first["generation"]


async def test_a_view_that_is_not_there_is_named_with_those_that_are(desk):
    nobody = await desk.crm("rebuild", "nothing")
    assert nobody.returncode == 2
    assert "asset_panorama" in nobody.stderr


async def test_an_interrupted_rebuild_says_so_and_the_same_command_goes_on(desk):
    await desk.tell(uuid5(NAMESPACE, "shown"), 1, "customer.registered", REGISTERED)
    async with _mongo(desk) as mongo:
        async with desk.running():
            assert await _shown(mongo, desk.position)
        # Nobody keeps the live generation up to date: the comparison waits for it, for many seconds.
        await desk.tell(uuid5(NAMESPACE, "not shown"), 1, "customer.registered", REGISTERED)
        command = [sys.executable, "-c", PROGRAM, "rebuild", "customers"]
        code, said = await asyncio.to_thread(_interrupted, command, desk.environment)
        assert code == INTERRUPTED, said
        assert said.endswith("crm rebuild: interrupted; the same command goes on from here\n")
        async with desk.running():
            assert await _shown(mongo, desk.position)
            again = await desk.crm("rebuild", "customers", "--json")
        assert again.returncode == 0, again.stderr
        assert json.loads(again.stdout)["resumed"] is True


def _interrupted(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Starts a command, and sends Ctrl-C at its first line. Returns its exit code, and what it said after that."""
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=WITHIN_SECONDS)
        return process.returncode, said


async def test_parked_subjects_are_listed_released_and_skipped(desk):
    subject = uuid5(NAMESPACE, "parked")
    sequence = next(_positions)
    await desk.tell(subject, sequence, "customer.renamed", {"name": "k1.a.b"})
    await desk.tell(subject, sequence + 1, "customer.registered", REGISTERED)
    async with _mongo(desk) as mongo, desk.running():
        assert await _shown(mongo, desk.position)
        listed = await desk.crm("parked", "list", "--json")
        items = json.loads(listed.stdout)["items"]
        [group] = {one["group"] for one in items}
        found = [one for one in items if one["subject"] == str(subject)]
        assert [(one["type"], one["sequence"], one["waiting"]) for one in found] == [
            ("customer.renamed", sequence, 2)
        ]
        assert "NotRegistered" in found[0]["reason"]
        assert str(subject) in (await desk.crm("parked", "list", "--group", group)).stdout
        assert (await desk.crm("parked", "list", "--group", "another")).stdout == "no subject is parked\n"

        unrepaired = await desk.crm("parked", "release", group, str(subject))
        assert unrepaired.returncode == 1
        assert "NotRegistered" in unrepaired.stderr
        assert (await desk.crm("parked", "release", group)).returncode == 2
        assert (await desk.crm("parked", "release", group, str(NAMESPACE))).returncode == 2

        letters = await desk.crm("dead-letters", "list", "customer.customers.v1", "--json")
        [letter] = [each for each in json.loads(letters.stdout)["items"] if each["subject"] == str(subject)]
        assert (letter["topic"], letter["type"], letter["sealed_bytes"]) == (
            CUSTOMER_EVENTS.name,
            "customer.renamed",
            0,
        )
        resent = await desk.crm("dead-letters", "resend", "customer.customers.v1")
        assert (resent.returncode, resent.stdout) == (1, "1 subjects still wait; see `crm parked list`\n")
        assert (await desk.crm("dead-letters", "list", "nobody")).returncode == 2

        assert (await desk.crm("parked", "release", group, str(subject), "--skip")).returncode == 2
        skipped = await desk.crm(
            "parked", "release", group, str(subject), "--skip", "--reason", "a test of theirs"
        )
        assert (skipped.returncode, skipped.stdout) == (0, "released\n"), skipped.stderr
        assert subject not in {parked.subject for parked in await parked_of(mongo)}
        collection = await ViewReader(mongo, CLOCK, VIEWS).collection("customers", "customers")
        document = await mongo.find_one(collection, {"_id": str(subject)})
        assert document is not None
        assert document["_seq"] == sequence + 1
    recorder = Recorder(desk.settings.postgres_url, SCHEMA)
    stored = [catalogue().open(one, None) for one in recorder.read_stream(operations_stream(CONTEXT))]
    recorder.close()
    last = stored[-1]
    assert (last.event.action, last.event.target) == ("parked-skipped", f"{group} {subject}")
    assert (last.metadata.actor, last.metadata.reason) == (f"os:{getpass.getuser()}", "a test of theirs")
    assert last.metadata.privilege == "high"

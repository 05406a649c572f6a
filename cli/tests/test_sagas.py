"""Sagas from outside: listed, verified, and tried again where they are stuck."""

import asyncio
import json
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from chassis.clock import SystemClock, uuid7
from chassis.sagas.deciding import Answer, Refuse, SagaCommand, TimeOut
from chassis.write.deciding import CommandContext
from crm_cli.contexts import CONTEXTS
from crm_cli.sagas import app, sagas_of
from crm_cli.verify_report import Report
from crm_cli.verify_sagas import check_sagas
from crm_cli.verify_store import Store
from customer.catalogue import catalogue
from customer.connections import write_side
from customer.sagas import PREPARE_ERASURE, handler_of, starting
from customer.settings import CustomerSettings
from typer.testing import CliRunner, Result

from .planting import spoiled
from .stores import Bank, new_database

CLOCK = SystemClock()
CUSTOMER, RUNNING, STUCK = UUID(int=1), UUID(int=2), UUID(int=3)
PARTY = UUID(int=4)
TIMER = (
    "insert into store_customer.timers values (%s, 'saga-timeout', '', gen_random_uuid(), 1, now(), now(), '{}', 0, %s,"
    " null, 'g')"
)


@pytest.fixture
def bank(postgres_url: str, tmp_path: Path) -> Bank:
    return Bank(new_database(postgres_url), "127.0.0.1:1", "mongodb://127.0.0.1:1", tmp_path)


def context() -> CommandContext:
    now = CLOCK.now()
    return CommandContext(actor="chen", now=now, command_id=uuid7(now))


async def begun(settings: CustomerSettings) -> None:
    """One saga that runs, and one whose compensation is refused."""
    async with write_side(settings, CLOCK) as write:
        sagas, handler = starting(write), handler_of(write)
        for id in (RUNNING, STUCK):
            party = {"source": "core", "party_id": str(PARTY)}
            data = {"customer": str(CUSTOMER), "preparation": str(id), "parties": [party]}
            await sagas.start(PREPARE_ERASURE, id, data, context())
        commands: list[SagaCommand] = [
            Answer("accept", undoes=False),
            Answer(f"close:{PARTY}", undoes=False),
            Answer("confirm", undoes=False),
            TimeOut(),
            Refuse(f"close:{PARTY}", undoes=True, code="party-unknown"),
        ]
        for command in commands:
            await handler.handle(STUCK, command, context())


async def verified(settings: CustomerSettings) -> Report:
    """What verification says of the sagas."""
    report = Report()
    store = Store(settings.postgres_url, CONTEXTS["customer"], report)
    try:
        await check_sagas(settings.postgres_url, CONTEXTS["customer"], store, report, CLOCK, 0.0)
    finally:
        store.close()
    return report


async def crm(bank: Bank, *arguments: str) -> Result:
    """What `crm sagas` says, in a thread of this process."""
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=bank.environment())


async def test_a_saga_is_listed_verified_and_tried_again(bank: Bank) -> None:
    known = {"postgres_url", "keys_url", "data", "environment"}
    settings = CustomerSettings(**bank.settings().model_dump(include=known))
    assert sagas_of(settings, CONTEXTS["customer"]) == []
    await begun(settings)
    running, stuck = sagas_of(settings, CONTEXTS["customer"])
    assert (running.id, running.status, running.open_steps) == (RUNNING, "running", ("accept",))
    assert (stuck.id, stuck.status, stuck.because, stuck.code) == (
        STUCK,
        "stuck",
        "timed-out",
        "party-unknown",
    )

    report = await verified(settings)
    assert not report.green
    assert f"the saga {RUNNING} has not ended" in report.readable()
    assert str(STUCK) not in "".join(line for line in report.readable().splitlines() if "not ended" in line)
    with psycopg.connect(settings.postgres_url) as connection:
        connection.execute(TIMER, (RUNNING, CLOCK.now()))
    report = await verified(settings)
    assert report.green
    assert report.figures["sagas"] == {"customer": {"open": 2, "stuck": [str(STUCK)]}}
    with psycopg.connect(settings.postgres_url) as connection:
        connection.execute("update store_customer.timers set run_at = null")
    assert not (await verified(settings)).green, "a timer that was given ends nothing any more"

    listed = await crm(bank, "list", "--json")
    assert listed.exit_code == 1, listed.stderr
    assert [one["status"] for one in json.loads(listed.stdout)["items"]] == ["running", "stuck"]
    again = await crm(bank, "again", str(STUCK), "--reason", "the party is known now", "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["open_steps"] == [f"close:{PARTY}"]
    async with write_side(settings, CLOCK) as write:
        [*_, last] = await write.store.read_stream(STUCK)
        metadata = catalogue().metadata_of(last)
    assert (last.name, metadata.reason) == ("saga-undo-tried-again", "the party is known now")
    async with write_side(settings, CLOCK) as write:
        await handler_of(write).handle(
            STUCK, Refuse(f"close:{PARTY}", undoes=True, code="party-unknown"), context()
        )
    skipped = await crm(bank, "skip", str(STUCK), "--reason", "the source is gone", "--json")
    assert skipped.exit_code == 0, skipped.stderr
    assert json.loads(skipped.stdout)["open_steps"] == ["accept"], "the step before it is taken back next"
    async with write_side(settings, CLOCK) as write:
        [*_, last] = await write.store.read_stream(STUCK)
        metadata = catalogue().metadata_of(last)
    assert (last.name, metadata.reason) == ("saga-undo-skipped", "the source is gone")
    unknown = await crm(bank, "again", str(CUSTOMER), "--reason", "x")
    assert (unknown.exit_code, "There is no such saga" in unknown.stderr) == (2, True)
    human = await crm(bank, "list")
    assert (human.exit_code, "because timed-out" in human.stdout) == (0, True)


async def test_a_saga_that_cannot_be_read_is_named_and_the_others_are_verified(bank: Bank) -> None:
    known = {"postgres_url", "keys_url", "data", "environment"}
    settings = CustomerSettings(**bank.settings().model_dump(include=known))
    await begun(settings)
    spoiled(settings.postgres_url, STUCK, b"{")
    unread, lost = (await verified(settings)).as_json()["invariants"]["I10"]["problems"]
    assert unread.startswith(f"customer: the saga {STUCK} cannot be read: ")
    assert f"the saga {RUNNING} has not ended" in lost

"""Timers from outside: verified against the events that set them, and given again or given up where they failed."""

import asyncio
import json
from datetime import date, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from chassis.clock import SystemClock, uuid7
from chassis.write.deciding import CommandContext
from chassis.write.operations import OperatorActed
from crm_cli.contexts import CONTEXTS, timers_of
from crm_cli.timers import app
from crm_cli.verify_report import Report
from crm_cli.verify_store import Store
from crm_cli.verify_timers import check_timers
from customer.application import ERASE, Erase
from customer.catalogue import SCHEMA, catalogue
from customer.connections import timers_side, write_side
from customer.domain.commands import Details, EndKeyCustomer, NameKeyCustomer, RegisterCustomer
from customer.permissions import ERASURE_APPROVERS
from customer.settings import CustomerSettings
from msgspec import structs
from typer.testing import CliRunner, Result

from .stores import Bank, new_database
from .turning import role, turned

CLOCK = SystemClock()
CONTEXT = CONTEXTS["customer"]
ZHANG, LI, WANG = UUID(int=1), UUID(int=2), UUID(int=3)


@pytest.fixture
def bank(postgres_url: str, tmp_path: Path) -> Bank:
    return Bank(new_database(postgres_url), "127.0.0.1:1", "mongodb://127.0.0.1:1", tmp_path)


@pytest.fixture
def settings(bank: Bank) -> CustomerSettings:
    known = {"postgres_url", "keys_url", "data", "environment"}
    return CustomerSettings(**bank.settings().model_dump(include=known))


def context() -> CommandContext:
    now = CLOCK.now()
    return CommandContext(actor="chen", now=now, command_id=uuid7(now))


async def verified(settings: CustomerSettings) -> Report:
    """What verification says of the timers."""
    report = Report()
    store = Store(settings.postgres_url, CONTEXT, report)
    try:
        await check_timers(
            CONTEXT, *timers_of(CONTEXT, settings), store, store.head(), report, CLOCK, wait_seconds=0.0
        )
    finally:
        store.close()
    return report


REVIEW = "name = 'customer-review'"
HARMS = {
    "is missing": "delete from {t} where subject = %(subject)s and {r}",
    "or has other data": "update {t} set due_at = due_at + interval '1 day' where subject = %(subject)s and {r}",
    "is due at": "update {t} set data = '{{}}' where subject = %(subject)s and {r}",
    f"the timers of {ZHANG} cannot be read": "update {t} set data = 'none' where subject = %(subject)s and {r}",
    f"of {WANG} cannot be read": "update {t} set data = '[]' where subject = %(given)s and {r}",
    "set it last": "update {t} set position = position - 1 where subject = %(subject)s and {r}",
    "no event set it": "update {t} set slot = 'another' where subject = %(subject)s and {r}",
    "no command of it is in the store": "update {t} set cause = gen_random_uuid() where subject = %(given)s and {r}",
    "was carried out": "update {t} set outcome = 'done', run_at = null, settled_at = now() where subject = %(subject)s and {r}",
    "withdrew it": "update {t} set subject = '" + str(LI) + "' where subject = %(subject)s and {r}",
}


async def crm(bank: Bank, *arguments: str) -> Result:
    """What `crm timers` says, in a thread of this process."""
    return await asyncio.to_thread(CliRunner().invoke, app, list(arguments), env=bank.environment())


async def test_a_timer_that_failed_is_listed_given_again_and_given_up(
    settings: CustomerSettings, bank: Bank
) -> None:
    async with write_side(settings, CLOCK) as write:
        for customer in (ZHANG, LI, WANG):
            await write.handler.handle(customer, RegisterCustomer(Details(name="张伟")), context())
            await write.handler.handle(customer, NameKeyCustomer(date(2026, 1, 1)), context())
    async with role(settings) as loop:
        await loop.begin()
        epoch = await loop._lease.acquire()
        await loop._catch_up(epoch, None)
        await loop._lease.release()
    with psycopg.connect(settings.postgres_url) as connection:
        connection.execute(
            f"update {SCHEMA}.timers set run_at = null, outcome = 'failed: KeyError at x', tries = 3, settled_at ="
            f" case when subject <> %s then now() end where {REVIEW}",
            (WANG,),
        )
    listed = await crm(bank, "list", "--json")
    assert listed.exit_code == 1, listed.stderr
    assert [(one["subject"], one["given"]) for one in json.loads(listed.stdout)["items"]] == [
        (str(ZHANG), True),
        (str(LI), True),
        (str(WANG), False),
    ]
    said = ("customer-review", "--reason", "the code is mended")
    for subject, verb, code in (
        (ZHANG, "retry", 0),
        (ZHANG, "retry", 2),
        (LI, "drop", 0),
        (LI, "retry", 2),
        (WANG, "retry", 2),
        (UUID(int=9), "drop", 2),
    ):
        ended = await crm(bank, verb, "customer", str(subject), *said)
        assert ended.exit_code == code, (subject, verb, ended.stderr)
    assert (await crm(bank, "drop", "nowhere", str(LI), *said)).exit_code == 2
    await turned(settings)
    async with write_side(settings, CLOCK) as write:
        events = await write.store.read_after(0, 1_000)
    assert [one.stream_id for one in events if one.name == "review-fell-due"] == [ZHANG]
    acts = [catalogue().decode(one) for one in events if one.name == "operator-acted"]
    assert [(one.event.action, one.metadata.reason) for one in acts[:2]] == [
        ("timer-retried", "the code is mended")
    ] * 2
    assert acts[2].event == OperatorActed("timer-dropped", f"customer {LI} customer-review")
    report = await verified(settings)
    assert report.figures["timers"]["customer"] == {"standing": 3, "settled": 2, "failed": 1}


async def test_timers_are_verified_against_the_events_that_set_them(settings: CustomerSettings) -> None:
    assert (await verified(settings)).green, "where nothing is stored, nothing is to be folded"
    today = settings.business_date(CLOCK)
    async with write_side(settings, CLOCK) as write:
        for customer, days in ((ZHANG, 7), (LI, 7), (WANG, -90)):
            await write.handler.handle(customer, RegisterCustomer(Details(name="张伟")), context())
            due_on = today + timedelta(days=days)
            await write.handler.handle(customer, NameKeyCustomer(due_on), context())
        await write.handler.handle(LI, EndKeyCustomer(), context())
    behind = await verified(settings)
    assert "7 events are not folded to timers" in behind.readable()
    await turned(settings)
    report = await verified(settings)
    assert report.green, report.readable()
    assert report.figures["timers"] == {"customer": {"standing": 4, "settled": 1, "failed": 0}}

    table = f"{SCHEMA}.timers"
    for said, harm in HARMS.items():
        with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
            connection.execute(f"create table saved as select * from {table}")
            connection.execute(harm.format(t=table, r=REVIEW), {"subject": ZHANG, "given": WANG})
            found = (await verified(settings)).readable()
            connection.execute(f"delete from {table}")
            connection.execute(f"insert into {table} select * from saved")
            connection.execute("drop table saved")
        assert said in found, said
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        forgotten = "cause = gen_random_uuid(), settled_at = now() - interval '30 days'"
        connection.execute(f"update {table} set {forgotten} where subject = %s and {REVIEW}", (WANG,))
    assert (await verified(settings)).green, "what the store may have forgotten is not looked for"
    other = settings.model_copy(update={"working_hours": "10:00-12:00"})
    other.__dict__.pop("calendar", None)
    assert "with another calendar" in (await verified(other)).readable()
    assert (await verified(settings)).green


async def test_a_proposal_of_which_nobody_was_told_is_found(settings: CustomerSettings) -> None:
    async with timers_side(settings, CLOCK) as (service, write):
        await write.handler.handle(ZHANG, RegisterCustomer(Details(name="张伟")), context())
        asked = structs.replace(context(), reason="the retention period is over")
        proposed = await service.eyes.propose(ERASE, ZHANG, Erase(), asked)
    await turned(settings)
    async with write_side(settings, CLOCK) as write:
        told = [one for one in await write.store.read_after(0, 1_000) if one.name == "notice-requested"]
    assert len(told) == len(ERASURE_APPROVERS)
    assert (await verified(settings)).green
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        untold = f"update {SCHEMA}.timers set cause = gen_random_uuid() where subject = %s"
        connection.execute(untold, (proposed.proposal_id,))
    assert (
        f"the timer proposal-waits of {proposed.proposal_id} was carried out, and no command of it is in the store"
        in (await verified(settings)).readable()
    )

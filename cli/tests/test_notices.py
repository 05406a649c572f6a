"""Notices from outside: verified against their events, and shown where they wait."""

from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid5

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.notices import Wanted, of_role
from chassis.notices.loop import NoticeLoop
from chassis.notices.table import NOTICES_LEASE, Limit, PostgresNotices
from chassis.process.leases import Lease, PostgresLease
from chassis.write.deciding import CommandContext
from crm_cli.contexts import CONTEXTS
from crm_cli.status import context_status
from crm_cli.verify_notices import check_notices
from crm_cli.verify_report import Report
from crm_cli.verify_store import Store
from customer.catalogue import SCHEMA, catalogue
from customer.connections import Write, notices_of, write_side
from customer.notices import CONTACT_CHANGED_SMS, PROPOSAL_WAITS
from customer.settings import CustomerSettings

from .planting import spoiled
from .stores import Bank, new_database

CLOCK = SystemClock()
SENT, IN_INBOX = UUID(int=2), UUID(int=3)


@pytest.fixture
def settings(postgres_url: str, tmp_path: Path) -> CustomerSettings:
    bank = Bank(new_database(postgres_url), "127.0.0.1:1", "mongodb://127.0.0.1:1", tmp_path)
    known = {"postgres_url", "keys_url", "data", "environment"}
    return CustomerSettings(**bank.settings().model_dump(include=known))


async def requested(write: Write) -> None:
    """One notice for a person, and one in an inbox."""
    notices, subject = notices_of(write), UUID(int=1)
    for id, to, template, values in (
        (SENT, "+8613800001234", CONTACT_CHANGED_SMS.name, {"what": "手机号码"}),
        (IN_INBOX, of_role("compliance"), PROPOSAL_WAITS.name, {"what": "x", "proposal": "y"}),
    ):
        context = CommandContext(actor="policy", now=CLOCK.now(), command_id=uuid5(id, "request"))
        await notices.request(id, Wanted(subject, to, template, values), context)


async def folded(settings: CustomerSettings, write: Write) -> None:
    """The role has seen all that is stored, and has no provider."""
    url = settings.postgres_url
    row, table = PostgresLease(url, SCHEMA, NOTICES_LEASE), PostgresNotices(url, SCHEMA)
    lease, each = Lease(row, CLOCK), Limit(1_000, 1.0)
    parts = notices_of(write), write.store, catalogue(), table, {}, lease, CLOCK
    loop = NoticeLoop("notices", *parts, limits={}, to_each=each)
    try:
        await loop.begin()
        await loop.turn(await lease.acquire())
        await loop.under_way()
    finally:
        await lease.release()
        await row.close()
        await table.close()


async def verified(settings: CustomerSettings) -> Report:
    """What verification says of the notices."""
    report = Report()
    store = Store(settings.postgres_url, CONTEXTS["customer"], report)
    try:
        await check_notices(CONTEXTS["customer"], store, store.head(), report, CLOCK, 0.0)
    finally:
        store.close()
    return report


async def test_a_notice_that_nothing_sends_is_found(settings: CustomerSettings) -> None:
    async with write_side(settings, CLOCK) as write:
        await requested(write)
        assert "2 events are not folded to notices" in (await verified(settings)).readable()
        await folded(settings, write)
        report = await verified(settings)
        assert (report.green, report.checked["I10"]) == (True, 2)
        assert report.figures["notices"] == {"customer": {"waiting": 1}}
        status = context_status(settings.postgres_url, CONTEXTS["customer"], CLOCK.now() + timedelta(hours=1))
        assert status["notices"]["waiting"] == 1
        assert 3_600 <= status["notices"]["age_seconds"] < 3_660
        with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
            connection.execute(f"delete from {SCHEMA}.notices")
        said = (await verified(settings)).readable()
        assert f"the notice {SENT} is requested, and nothing sends it" in said
        assert f"the notice {IN_INBOX} is requested, and it is in no inbox" in said
        await notices_of(write).given_up(SENT, "expired", 0, CLOCK.now())
        await folded(settings, write)
        assert f"{SENT}" not in (await verified(settings)).readable()


async def test_a_request_that_cannot_be_read_is_named_and_the_others_are_checked(
    settings: CustomerSettings,
) -> None:
    async with write_side(settings, CLOCK) as write:
        await requested(write)
        await folded(settings, write)
    with psycopg.connect(settings.postgres_url, autocommit=True) as connection:
        connection.execute(f"delete from {SCHEMA}.notices")
    spoiled(settings.postgres_url, SENT, b'{"meta":{},"data":{}}')
    unread, missing = (await verified(settings)).as_json()["invariants"]["I10"]["problems"]
    assert unread.startswith(f"customer: the notice {SENT} cannot be read: ")
    assert f"the notice {IN_INBOX} is requested, and it is in no inbox" in missing

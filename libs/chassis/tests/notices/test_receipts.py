"""Receipts: signed, idempotent, in any order with our own events; and inboxes, which a notice is in once."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

import pytest
from chassis.notices import Inboxes, InboxTable, Notices, NoticeUnknown, Template, Wanted, inboxes_of
from chassis.notices.deciding import (
    NOTICE,
    HandOver,
    MarkRead,
    Notice,
    NoticeBounced,
    NoticeDelivered,
    NoticeHandedOver,
    NoticeReadByMany,
    NoticeRequested,
    Receive,
)
from chassis.notices.signing import SignatureInvalid, signed_headers
from chassis.write.deciding import CommandContext, CommandKeyReused
from chassis.write.store import EventStore

from tests.support.jars import NOW, jar
from tests.support.specification import Specification

SECRET = bytes(range(32))
SECOND = timedelta(seconds=1)
notice = Specification(NOTICE)
REQUESTED = NoticeRequested(
    jar("a"), "sms", "jar-full", 1, "k1.a.b", "k1.c.d", "digest", NOW, NOW + 60 * SECOND
)
IN_INBOX = NoticeRequested(
    jar("a"),
    "inbox",
    "jar-check",
    1,
    "k1.a.b",
    "k1.c.d",
    "digest",
    NOW,
    NOW + 60 * SECOND,
    inbox="role:keeper",
)
HANDED_OVER = NoticeHandedOver("gateway", "p-1", "k1.e.f", jar("a"))
DELIVERED = NoticeDelivered("r-1", NOW)
BOUNCED = NoticeBounced("r-2", "absent", NOW + SECOND)


def received(receipt: str, outcome: Any = "delivered", at: datetime = NOW, channel: Any = "sms") -> Receive:
    """A receipt."""
    return Receive(receipt, channel, outcome, "absent", at)


def test_a_receipt_counts_once_and_before_our_own_event_too() -> None:
    notice.given(REQUESTED).when(received("r-1")).then(DELIVERED)
    notice.given(REQUESTED, DELIVERED).when(received("r-1")).then()
    notice.given(REQUESTED, DELIVERED).when(HandOver("gateway", "p-1", "k1.e.f")).then(HANDED_OVER)
    notice.given().when(received("r-1")).then_rejected(NoticeUnknown)
    notice.given(REQUESTED).when(received("r-1", channel="email")).then_rejected(NoticeUnknown)
    notice.given(IN_INBOX).when(received("r-1", channel="inbox")).then_rejected(NoticeUnknown)


def test_of_several_receipts_the_one_that_occurred_last_counts_in_any_order() -> None:
    for events in ([DELIVERED, BOUNCED], [BOUNCED, DELIVERED]):
        for handed_over_at in range(3):
            came = [REQUESTED, *events]
            came.insert(1 + handed_over_at, HANDED_OVER)
            state = NOTICE.fold(came)  # type: ignore[arg-type]
            assert (state.status, state.code, state.handed_over) == ("bounced", "absent", True)
    same_time = NoticeBounced("r-2", "absent", NOW)
    for pair in ([DELIVERED, same_time], [same_time, DELIVERED]):
        assert NOTICE.fold([REQUESTED, *pair]).status == "bounced"  # type: ignore[list-item]


def test_receipts_and_readers_of_one_notice_are_bounded() -> None:
    many = [NoticeDelivered(f"r-{number}", NOW) for number in range(20)]
    notice.given(REQUESTED, *many).when(received("r-20")).then()
    crowd = Notice(status="delivered", requested=IN_INBOX, readers=frozenset(f"p{n}" for n in range(5_000)))
    with pytest.raises(NoticeReadByMany):
        NOTICE.decide(MarkRead("another"), crowd)
    assert NOTICE.decide(MarkRead("p7"), crowd) == []


@pytest.fixture
async def inboxes(bench: Any) -> AsyncIterator[Inboxes]:
    """The inboxes as a process has them that serves HTTP."""
    table = InboxTable(bench.url, bench.schema)
    yield Inboxes(bench.notices, table, {"sms": SECRET}, bench.clock)
    await table.close()


async def receipt(
    inboxes: Inboxes, bench: Any, id: UUID, name: str, outcome: Any = "delivered", **other: Any
) -> None:
    """A provider's receipt."""
    body = json.dumps({"notice_id": str(id), "outcome": outcome}).encode()
    headers = signed_headers(other.get("secret", SECRET), name, bench.clock.now(), body)
    at = other.get("at", bench.clock.now())
    await inboxes.receive(other.get("channel", "sms"), headers, body, id, outcome, "absent", at)


async def test_a_receipt_before_our_own_event_is_kept_and_nothing_is_sent_again(
    bench: Any, inboxes: Inboxes
) -> None:
    id = await bench.request("filled")
    await receipt(inboxes, bench, id, "r-1")
    await receipt(inboxes, bench, id, "r-1")
    async with bench.process() as work:
        await work()
    assert (
        bench.provider.got == []
    )  # the provider has it already: a process died between its answer and our event
    assert await bench.names(id) == ["notice-requested", "notice-delivered"]
    await receipt(inboxes, bench, id, "r-2", "bounced", at=bench.clock.now() + SECOND)
    state = await bench.notice(id)
    assert (state.status, state.code) == ("bounced", "absent")


async def test_a_receipt_is_refused_with_another_secret_channel_notice_or_content(
    bench: Any, inboxes: Inboxes
) -> None:
    id = await bench.request("filled")
    letter = await bench.request("by letter", "jar-letter", "li@example.com")
    for other in ({"secret": bytes(32)}, {"channel": "email"}):
        with pytest.raises(SignatureInvalid):
            await receipt(inboxes, bench, id, "r-1", **other)
    for unknown in (letter, UUID(int=5)):
        with pytest.raises(NoticeUnknown):
            await receipt(inboxes, bench, unknown, "r-1")
    await receipt(inboxes, bench, id, "r-1")
    with pytest.raises(CommandKeyReused):
        await receipt(inboxes, bench, id, "r-1", "bounced")


def context(person: str, key: str = "read") -> CommandContext:
    """A command of a member of staff."""
    return CommandContext(actor=person, now=NOW, command_id=uuid5(jar(person), key))


KEEPER, OTHER = inboxes_of("lin", ["keeper"]), inboxes_of("wu", ["visitor"])


@pytest.mark.requirement("R049")
async def test_a_notice_is_in_the_inbox_once_and_read_by_each_person_alone(
    bench: Any, inboxes: Inboxes
) -> None:
    id = await bench.request("looked", "jar-check", "role:keeper")
    await bench.request("looked", "jar-check", "role:keeper")
    mine = await bench.request("asked", "jar-check", "person:lin")
    async with bench.process() as work:
        await work()
    page = await inboxes.page(KEEPER, "lin", 2**63 - 1, 10, unread=False)
    assert [(one.notice.id, one.notice.read) for one in page] == [(mine, False), (id, False)]
    assert page[0].content is not None
    assert page[0].content.text == "Please look at Li."
    assert await inboxes.unread(KEEPER, "lin") == 2
    await inboxes.mark_read(id, KEEPER, context("lin"))
    await inboxes.mark_read(id, KEEPER, context("lin", "again"))
    assert await inboxes.unread(KEEPER, "lin") == 1
    assert [one.notice.id for one in await inboxes.page(KEEPER, "lin", 2**63 - 1, 10, unread=True)] == [mine]
    assert await inboxes.unread(inboxes_of("yu", ["keeper"]), "yu") == 1
    assert await bench.names(id) == ["notice-requested", "notice-read"]
    assert bench.provider.got == []


async def test_nobody_sees_or_reads_what_is_in_another_inbox(bench: Any, inboxes: Inboxes) -> None:
    id = await bench.request("looked", "jar-check", "role:keeper")
    async with bench.process() as work:
        await work()
    assert await inboxes.page(OTHER, "wu", 2**63 - 1, 10, unread=False) == []
    assert await inboxes.unread(OTHER, "wu") == 0
    with pytest.raises(NoticeUnknown):
        await inboxes.mark_read(id, OTHER, context("wu"))
    assert await inboxes.unread(inboxes_of("role:keeper", []), "role:keeper") == 0


async def test_an_inbox_is_paged_and_says_nothing_of_an_erased_subject(bench: Any, inboxes: Inboxes) -> None:
    ids = [await bench.request(f"looked {n}", "jar-check", "role:keeper", of=f"jar {n}") for n in range(3)]
    async with bench.process() as work:
        await work()
    bench.ring.erase([jar("jar 0")])
    first = await inboxes.page(KEEPER, "lin", 2**63 - 1, 2, unread=False)
    rest = await inboxes.page(KEEPER, "lin", first[-1].notice.position, 2, unread=False)
    assert [one.notice.id for one in (*first, *rest)] == ids[::-1]
    assert [one.content is None for one in (*first, *rest)] == [False, False, True]


async def test_a_notice_leaves_the_inbox_after_half_a_year(bench: Any, inboxes: Inboxes) -> None:
    id = await bench.request("looked", "jar-check", "role:keeper")
    async with bench.process() as work:
        await work()
        await inboxes.mark_read(id, KEEPER, context("lin"))
        bench.clock.advance(181 * 86_400)
        await work()
    assert bench.rows() == []
    assert bench.rows("notice", "notice_reads") == []
    assert (await bench.notice(id)).readers == {"lin"}


async def test_two_requests_of_one_notice_at_once_are_one(bench: Any) -> None:
    await asyncio.gather(*[bench.request("looked", "jar-check", "role:keeper") for _ in range(5)])
    async with bench.process() as work:
        await work()
    assert len(bench.rows()) == 1


async def test_two_versions_of_a_template_that_request_one_notice_at_once_are_one(
    bench: Any, postgres_url: str, schema: str
) -> None:
    """While a new version of the service is brought in. The first one stands, and the other is not refused."""
    newer = Template("jar-full", 2, "sms", "${owner}: full!", {"owner": 20})
    store = EventStore(postgres_url, schema)
    both = [bench.notices, Notices(store, bench.catalogue(), bench.ring, [newer])]
    for number in range(10):
        id = uuid5(jar("a"), f"both {number}")
        context = CommandContext(actor="policy", now=NOW, command_id=uuid5(id, "request"))
        wanted = Wanted(jar("a"), "+8613800001234", "jar-full", {"owner": "Li"})
        await asyncio.gather(*(one.request(id, wanted, context) for one in both))
        assert await bench.names(id) == ["notice-requested"]
    await store.close()


async def test_a_receipt_from_the_future_does_not_have_the_last_word(bench: Any, inboxes: Inboxes) -> None:
    id = await bench.request("filled")
    for _ in range(2):
        await receipt(inboxes, bench, id, "r-1", at=datetime(9999, 12, 31, tzinfo=UTC))
    bench.clock.advance(1)
    await receipt(inboxes, bench, id, "r-2", "bounced")
    assert (await bench.notice(id)).status == "bounced"

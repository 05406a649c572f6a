"""Notices over a real store: handed over once, again after what came in between, given up, and within limits."""

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from chassis.clock import SystemClock
from chassis.connections.transient import StoreUnavailable
from chassis.notices import NoticeDiffers, RecipientUnfit, SubjectGone, Template, ValuesUnfit
from chassis.notices.loop import AGAIN_SECONDS_FIRST, AGAIN_SECONDS_MAX, INBOX_KEPT, TRIES_MAX
from chassis.notices.providers import Accepted, Answer, Message, Provider, ProviderUnanswered, Rejected
from chassis.notices.requesting import Notices
from chassis.notices.table import PRUNED_AT_ONCE, Limit
from chassis.notices.templates import LIVES_MAX
from chassis.write.deciding import CommandContext
from typing_extensions import override

from tests.support.jars import jar


async def test_a_notice_is_handed_over_once_with_its_id(bench: Any) -> None:
    id = await bench.request("filled")
    await bench.request("filled")
    async with bench.process() as work:
        await work()
        await work()
    [message] = bench.provider.got
    assert (message.id, message.to, message.text) == (id, "+8613800001234", "The jar of Li is full.")
    notice = await bench.notice(id)
    assert (notice.status, notice.provider_id) == ("handed-over", f"p-{id}")
    assert await bench.names(id) == ["notice-requested", "notice-handed-over"]
    assert bench.rows() == []


async def test_an_app_is_pushed_a_notice_with_its_title_once(bench: Any) -> None:
    id = await bench.request("filled", "jar-push", "fcm:token-1")
    async with bench.process() as work:
        await work()
        await work()
    [message] = bench.provider.got
    assert (message.id, message.channel, message.to) == (id, "push", "fcm:token-1")
    assert (message.title, message.text) == ("A full jar", "The jar of Li is full.")
    assert (await bench.notice(id)).status == "handed-over"


async def test_nothing_personal_is_stored_in_clear_and_no_key_is_made_for_a_notice(bench: Any) -> None:
    id = await bench.request("filled")
    async with bench.process() as work:
        await work()
    stored = b"".join(one.body for one in await bench.store.read_stream(id))
    assert not any(word in stored for word in (b"13800001234", b"The jar", b"queued"))
    assert list(bench.ring.keys_for([id, jar("a")], create=False)) == [jar("a")]


async def test_a_notice_of_an_erased_subject_is_given_up_and_none_is_requested(bench: Any) -> None:
    id = await bench.request("filled")
    bench.ring.erase([jar("a")])
    async with bench.process() as work:
        await work()
    notice = await bench.notice(id)
    assert (notice.status, notice.because, bench.provider.got) == ("given-up", "erased", [])
    with pytest.raises(SubjectGone):
        await bench.request("emptied")


async def test_a_crash_after_the_providers_answer_hands_the_same_bytes_over_again(bench: Any) -> None:
    id = await bench.request("filled")
    accepted = bench.provider.answers

    def dies(message: Message) -> Answer:
        bench.provider.answers = accepted
        raise StoreUnavailable("the process is gone")  # as a kill after the answer: nothing of it is stored

    bench.provider.answers = dies
    async with bench.process() as work:
        await work()
    newer = Template("jar-full", 2, "sms", "${owner}: full!", {"owner": 20})
    bench.notices = Notices(bench.store, bench.catalogue(), bench.ring, [newer])
    await bench.request("filled")  # its cause comes again, with the newer template
    async with bench.process() as work:
        await work()
    first, second = bench.provider.got
    assert first == second
    assert (await bench.notice(id)).status == "handed-over"


async def test_a_process_that_is_told_to_end_ends_what_it_has_begun(bench: Any) -> None:
    """With SMTP, which knows no idempotency key, each restart would else repeat e-mails."""
    bench.clock = SystemClock()
    begun, answered, stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow(Provider):
        name = "slow"

        @override
        async def hand_over(self, message: Message) -> Answer:
            begun.set()
            await answered.wait()
            return Accepted(None, "queued")

    id = await bench.request("filled")
    async with bench.process(providers={"sms": Slow()}, poll_seconds=0.01):
        running = asyncio.create_task(bench.loop.run(stopping))
        await begun.wait()
        stopping.set()
        await asyncio.sleep(0.3)
        assert not running.done()
        answered.set()
        await running
    assert await bench.names(id) == ["notice-requested", "notice-handed-over"]


async def test_what_was_requested_is_sent_although_its_template_is_gone(bench: Any) -> None:
    id = await bench.request("filled")
    bench.notices = Notices(bench.store, bench.catalogue(), bench.ring, [])
    async with bench.process() as work:
        await work()
    [message] = bench.provider.got
    assert (message.id, message.text) == (id, "The jar of Li is full.")


async def test_what_is_not_answered_is_tried_again_later_and_given_up_at_the_end(bench: Any) -> None:
    id = await bench.request("filled")

    def unanswered(message: Message) -> Answer:
        raise ProviderUnanswered("gateway: answered 503")

    bench.provider.answers = unanswered
    async with bench.process(tries_max=3) as work:
        for tries in (1, 2, 3):
            await work()
            assert len(bench.provider.got) == tries
            await work()
            assert len(bench.provider.got) == tries  # not before its time
            bench.clock.advance(60)
    notice = await bench.notice(id)
    assert (notice.status, notice.because) == ("given-up", "tries")
    assert len(set(bench.provider.got)) == 1
    assert bench.rows() == []


async def test_a_notice_is_given_up_when_its_time_is_over_whoever_its_provider_is(bench: Any) -> None:
    id = await bench.request("filled")
    async with bench.process(providers={}) as work:
        await work()
        assert (await bench.notice(id)).status == "requested"
        bench.clock.advance(86_400)
        await work()
    notice = await bench.notice(id)
    assert (notice.status, notice.because) == ("given-up", "expired")


async def test_an_outage_gives_no_notice_up_before_its_time_is_over(bench: Any) -> None:
    """However long it lives: a provider may be away over holidays, and a channel without one until it gets one."""
    lives = timedelta(days=3)
    long = Template("jar-full", 1, "sms", "The jar of ${owner} is full.", {"owner": 20}, lives=lives)
    bench.notices = Notices(bench.store, bench.catalogue(), bench.ring, [long])
    id, began = await bench.request("filled"), bench.clock.now()
    async with bench.process(providers={}) as work:
        while bench.clock.now() < began + lives:
            await work()
            assert (await bench.notice(id)).status == "requested", bench.clock.now() - began
            bench.clock.advance(2 * AGAIN_SECONDS_MAX)
        await work()
    assert (await bench.notice(id)).because == "expired"
    least_seconds = sum(min(AGAIN_SECONDS_FIRST * 2**tries, AGAIN_SECONDS_MAX) for tries in range(TRIES_MAX))
    assert least_seconds > LIVES_MAX.total_seconds()
    with pytest.raises(ValueError, match="lives longer"):
        Template("long", 1, "sms", "x", {}, lives=LIVES_MAX + timedelta(seconds=1))


async def test_what_is_refused_for_good_is_not_tried_again(bench: Any) -> None:
    id = await bench.request("filled")
    bench.provider.answers = lambda _: Rejected("number-unknown", "no such number: +8613800001234")
    async with bench.process() as work:
        await work()
        bench.clock.advance(3_600)
        await work()
    notice = await bench.notice(id)
    assert (notice.status, notice.code, len(bench.provider.got)) == ("refused", "number-unknown", 1)


async def test_a_provider_that_asks_for_time_is_left_alone_and_the_other_channel_goes_on(bench: Any) -> None:
    sms = await bench.request("filled")
    other = await bench.request("again", of="b")

    def busy(message: Message) -> Answer:
        if message.channel == "sms":
            raise ProviderUnanswered("gateway: answered 429", 120.0)
        return Accepted(None, "")

    bench.provider.answers = busy
    async with bench.process(at_once_max=1) as work:
        await work()
        letter = await bench.request("by letter", "jar-letter", "li@example.com")
        await work()
        bench.clock.advance(119)
        await work()
        assert [message.channel for message in bench.provider.got] == ["sms", "email"]
        bench.provider.answers = lambda _: Accepted(None, "")
        bench.clock.advance(1)
        await work()
    assert {(await bench.notice(id)).status for id in (sms, other, letter)} == {"handed-over"}


async def test_two_processes_and_a_restart_keep_one_limit(bench: Any) -> None:
    for number in range(6):
        await bench.request(f"filled {number}", of=f"jar {number}")
    limits = {"sms": Limit(4, 86_400.0)}
    async with bench.process(limits) as work:
        await work()
    assert len(bench.provider.got) == 4
    async with bench.process(limits) as work:
        await work()
    assert len(bench.provider.got) == 4
    assert len(bench.rows()) == 2


async def test_one_subject_gets_no_more_than_its_limit_and_others_do(bench: Any) -> None:
    for number in range(3):
        await bench.request(f"filled {number}")
    await bench.request("filled", of="b")
    async with bench.process(to_each=Limit(2, 86_400.0)) as work:
        await work()
        assert len(bench.provider.got) == 3
        [(run_at, reason)] = bench.rows("run_at, reason")
        assert run_at > bench.clock.now()
        assert reason == "limited"


async def test_the_queue_is_folded_again_from_the_events(bench: Any) -> None:
    done = await bench.request("filled")
    async with bench.process() as work:
        await work()
    waits, inbox = await bench.request("again"), await bench.request("looked", "jar-check", "role:keeper")
    with psycopg.connect(bench.url, autocommit=True) as connection:
        connection.execute(f"truncate {bench.schema}.notices, {bench.schema}.notice_folds")
    async with bench.process(providers={}) as work:
        await work()
    assert {row[0] for row in bench.rows()} == {waits, inbox}
    assert (await bench.notice(done)).status == "handed-over"
    assert len(bench.provider.got) == 1


async def test_an_id_is_for_one_notice(bench: Any) -> None:
    id = await bench.request("filled")
    with pytest.raises(NoticeDiffers):
        await bench.request("filled", owner="Wang")
    with pytest.raises(NoticeDiffers):
        await bench.request("filled", to="+8613800009999")
    assert await bench.names(id) == ["notice-requested"]


@pytest.mark.parametrize(
    ("template", "to"),
    [
        ("jar-full", "138 0000"),
        ("jar-full", "+86138\n00001234"),
        ("jar-full", ""),
        ("jar-letter", "li@example.com, wang@example.com"),
        ("jar-letter", "li@example.com\r\nBcc: x@example.com"),
        ("jar-letter", "<li@example.com>"),
        ("jar-letter", "li"),
        ("jar-letter", f"{'l' * 60}@{'e' * 200}.com"),
        ("jar-check", "\u202erole:keeper"),
        ("jar-check", "lin"),
    ],
)
async def test_a_recipient_who_cannot_be_one_is_refused(bench: Any, template: str, to: str) -> None:
    with pytest.raises(RecipientUnfit):
        await bench.request("filled", template, to)


async def test_a_value_that_does_not_fit_is_refused_at_the_request(bench: Any) -> None:
    with pytest.raises(ValuesUnfit):
        await bench.request("filled", owner="Li\r\nBcc: x@example.com")
    assert bench.rows() == []


async def test_what_has_expired_takes_no_place_of_those_that_have_not(bench: Any) -> None:
    old = [await bench.request(f"filled {number}") for number in range(5)]
    bench.clock.advance(86_400)
    fresh = await bench.request("filled again")
    async with bench.process({"sms": Limit(1, 86_400.0)}) as work:
        await work()
    assert {(await bench.notice(id)).because for id in old} == {"expired"}
    assert [message.id for message in bench.provider.got] == [fresh]


async def test_a_fault_of_a_provider_s_code_stops_no_other_notice(bench: Any) -> None:
    bad = await bench.request("filled")
    good = await bench.request("filled", of="b")

    def faulty(message: Message) -> Answer:
        if message.id == bad:
            raise KeyError("a fault")
        return Accepted(None, "")

    bench.provider.answers = faulty
    async with bench.process() as work:
        await work()
        assert ((await bench.notice(good)).status, (await bench.notice(bad)).status) == (
            "handed-over",
            "requested",
        )
        bench.provider.answers = lambda _: Accepted(None, "")
        bench.clock.advance(60)
        await work()
    assert (await bench.notice(bad)).status == "handed-over"


async def test_inboxes_and_limits_are_pruned_some_at_a_time_until_nothing_is_left(bench: Any) -> None:
    inbox = {"template": "jar-check", "to": "person:chen"}
    old, read = [await bench.request(cause, **inbox) for cause in ("old", "read")]
    given = CommandContext(actor="chen", now=bench.clock.now(), command_id=jar("read"))
    await bench.notices.mark_read(read, frozenset({"person:chen"}), given)
    async with bench.process() as work:
        await work()
    assert sorted(bench.rows()) == sorted([(old,), (read,)])
    assert bench.rows("notice", "notice_reads") == [(read,)]
    bench.clock.advance(INBOX_KEPT.total_seconds() + 1)
    new = await bench.request("new", **inbox)
    with psycopg.connect(bench.url) as connection:
        insert = f"insert into {bench.schema}.notice_limits (key, free_at)"
        spent = f"{insert} select n::text, now() - interval '1 s' from generate_series(1, %s) as n"
        connection.execute(spent, (2 * PRUNED_AT_ONCE,))
        connection.execute(f"{insert} values ('full', now() + interval '1 h')")
    left = []
    async with bench.process():
        epoch = await bench.loop._lease.acquire()
        for _ in range(4):
            await bench.loop.turn(epoch)
            left.append(len(bench.rows("key", "notice_limits")))
    assert left == [PRUNED_AT_ONCE + 1, 1, 1, 1]
    assert bench.rows("key", "notice_limits") == [("full",)]
    assert (bench.rows(), bench.rows("notice", "notice_reads")) == ([(new,)], [])

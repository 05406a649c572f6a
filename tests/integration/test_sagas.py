"""The erasure of a customer is prepared over two contexts, whose API freezes, answers late, or refuses."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from uuid import UUID

from chassis.clock import SystemClock, uuid7
from chassis.privacy.tokens import development_token
from chassis.sagas import HttpPeer, Sagas, SagaShown, SagaUnknown
from chassis.sagas.peers import ServiceToken
from chassis.write.deciding import CommandContext
from chassis.write.store import Recorder
from crm_cli.web import web_app
from customer.catalogue import SCHEMA as CUSTOMER_SCHEMA
from customer.catalogue import catalogue
from customer.connections import both_sides, write_side
from customer.sagas import giving, starting
from customer.service import SERVICE
from sync_ingest.domain.events import ReleasesClosed, ReleasesOpened
from sync_ingest.domain.identities import feed_id
from sync_ingest.ledger import CATALOGUE, SCHEMA

from tests.chaos.proxy import Proxy
from tests.integration.conftest import System, lines
from tests.support.roles import settings_of
from tests.support.serving import served

CLOCK = SystemClock()
PATIENCE_SECONDS = 60.0
FROZEN_SECONDS = 0.3


@asynccontextmanager
async def frozen_at_will(system: System) -> AsyncIterator[tuple[Proxy, str]]:
    """The API of all contexts on loopback, behind a network that can be held back; the proxy and its address."""
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(web_app(lambda kind: settings_of(kind, system.customer)))
        port = await stack.enter_async_context(served(app))
        proxy = await asyncio.to_thread(Proxy, ("127.0.0.1", port))
        stack.push_async_callback(asyncio.to_thread, proxy.close)
        yield proxy, f"http://127.0.0.1:{proxy.port}"


async def customer_of(
    system: System, name: str, described: tuple[str, ...]
) -> tuple[UUID, list[tuple[str, UUID]]]:
    """A customer with a confirmed number at two sources, in the order in which they are closed. Those of `described`
    have described it."""
    ids = await asyncio.to_thread(system.ids)
    first, second = (f"{name}-{each}" for each in ("first", "second"))
    numbers = ((a, b) for a in range(100) for b in range(100))
    key, other = next(
        (f"P{a}", f"P{b}") for a, b in numbers if ids.party(first, f"P{a}") < ids.party(second, f"P{b}")
    )
    parties = [(first, key), (second, other)]
    for source, party in parties:
        if source in described:
            record = {"record": "party", "party": party, "name": "周慧", "born_on": "1980-02-29"}
            await asyncio.to_thread(system.take_in, source, lines(record))
    await system.caught_up()
    body = {
        "name": "周慧",
        "phone": "13800004321",
        "stated_assets": [{"product": "deposit", "amount": "1", "currency": "CNY"}],
    }
    made = await system.web.post("/customers", json=body, headers={"Idempotency-Key": name})
    at, tag = made.headers["Location"], made.headers["ETag"]
    # Who is described is a customer of its own, from whom the number is moved.
    for source, party in parties:
        id = ids.party(source, party)
        if source in described:
            found = (await system.web.get("/customers", params={"reference": f"{source}:{party}"})).json()[
                "items"
            ]
            holder = await system.web.get(f"/customers/{found[0]['customer_id']}")
            path = f"/customers/{found[0]['customer_id']}/references/{id}/move"
            moving = {"to": at.rpartition("/")[2], "reason": "it is the same person"}
            headers = {"Idempotency-Key": f"{source}-move", "If-Match": holder.headers["ETag"]}
            moved = await system.web.post(path, json=moving, headers=headers)
            assert moved.status_code == 200, moved.text
            tag = f'"{int(tag.strip(chr(34))) + 1}"'
        else:
            for step, what in (
                ("", {"source": source, "key": party}),
                (f"/{id}/confirm", {"reason": "seen"}),
            ):
                headers = {"Idempotency-Key": f"{source}{step}", "If-Match": tag}
                answer = await system.web.post(f"{at}/references{step}", json=what, headers=headers)
                assert answer.status_code == 200, answer.text
                tag = answer.headers["ETag"]
    await system.caught_up()
    return UUID(at.rpartition("/")[2]), [(source, ids.party(source, party)) for source, party in parties]


async def prepared(system: System, customer: UUID) -> UUID:
    """Compliance prepares the erasure, years after the relation ended; the id of the preparation."""
    settings = system.customer.model_copy(update={"retention_years": 0})
    async with both_sides(settings, CLOCK) as (service, write, _):
        write.handler.forget(customer)
        version = (await write.handler.load(customer)).version
        context = CommandContext(
            actor="chen", now=CLOCK.now(), command_id=uuid7(CLOCK.now()), reason="he asked for it"
        )
        await service.prepare_erasure(customer, context, version)
        return context.command_id


async def comes(found: Callable[[], Any], what: str) -> Any:
    """Waits for what a process does."""
    until = CLOCK.monotonic() + PATIENCE_SECONDS
    while (value := await found()) is None:
        assert CLOCK.monotonic() < until, what
        await asyncio.sleep(0.05)
    return value


async def started(sagas: Sagas, id: UUID) -> SagaShown | None:
    """The saga, once the policy has started it."""
    try:
        return await sagas.shown(id)
    except SagaUnknown:
        return None


def switched(system: System, sources: list[str]) -> list[tuple[str, UUID, str]]:
    """What ingest closed and opened, in order, and who had it done."""
    recorder = Recorder(system.ingest.postgres_url, SCHEMA)
    try:
        stored = [one for source in sources for one in recorder.read_stream(feed_id(source))]
    finally:
        recorder.close()
    opened = [CATALOGUE.open(one, None) for one in sorted(stored, key=lambda one: one.position or 0)]
    return [
        (one.name, one.event.party_id, one.metadata.actor)
        for one in opened
        if isinstance(one.event, ReleasesClosed | ReleasesOpened)
    ]


async def test_a_peer_that_freezes_is_asked_again_and_does_it_once_and_what_is_withdrawn_is_opened_again(
    system: System,
) -> None:
    customer, parties = await customer_of(system, "frozen", ("frozen-first", "frozen-second"))
    sources = [source for source, _ in parties]
    preparation = await prepared(system, customer)
    async with frozen_at_will(system) as (proxy, url), write_side(system.customer, CLOCK) as write:
        await comes(lambda: started(starting(write), preparation), "the policy starts the saga")
        token = ServiceToken(system.customer, "customer", CLOCK)
        async with HttpPeer(url, token, answer_seconds_max=FROZEN_SECONDS) as peer:
            sagas = giving(write, {"ingest": peer})
            await asyncio.to_thread(proxy.stall)
            for _ in range(2):
                state, unanswered = await sagas.advance(preparation)
                assert (state.status, unanswered) == ("running", "ingest: TimeoutError")
            assert (await sagas.shown(preparation)).open_steps == (f"close:{parties[0][1]}",)
            # What was held back arrives now, though nobody waits for it any more.
            await asyncio.to_thread(proxy.heal)
        async with HttpPeer(url, token) as peer:
            sagas = giving(write, {"ingest": peer})
            state, unanswered = await sagas.advance(preparation)
            assert unanswered is None
            assert state.own.prepared
            closed = [("releases-closed", party, "service:customer") for _, party in parties]
            assert switched(system, sources) == closed

            compliance = development_token(system.customer, CLOCK.now(), subject="chen", roles=["compliance"])
            await system.caught_up()
            shown = await system.web.get(f"/customers/{customer}")
            ended = await system.web.post(
                f"/customers/{customer}/erasure-preparation/end",
                json={"reason": "he stays"},
                headers={
                    "Authorization": f"Bearer {compliance}",
                    "Idempotency-Key": "end",
                    "If-Match": shown.headers["ETag"],
                },
            )
            assert ended.status_code == 200, ended.text

            async def over() -> Any:
                state, _ = await sagas.advance(preparation)
                return state if state.status == "ended" else None

            state = await comes(over, "the saga hears that it was withdrawn")
            assert (state.outcome, state.because) == ("compensated", "withdrawn")
            opened = [("releases-opened", party, "service:customer") for _, party in reversed(parties)]
            assert switched(system, sources) == closed + opened


async def test_a_peer_that_refuses_has_what_was_done_taken_back_by_the_role(system: System) -> None:
    customer, parties = await customer_of(system, "refused", ("refused-first",))
    async with frozen_at_will(system) as (_, url), write_side(system.customer, CLOCK) as write:
        settings = settings_of(SERVICE.settings, system.customer).model_copy(
            update={"peer_urls": {"ingest": url}}
        )
        stopping = asyncio.Event()
        role = SERVICE.roles(settings)["sagas"]()
        running = asyncio.create_task(role.run(stopping))
        try:
            preparation = await prepared(system, customer)

            async def ended() -> list[str] | None:
                stored = await write.store.read_stream(customer)
                names = [one.name for one in stored if one.name.startswith("erasure")]
                return names if "erasure-preparation-ended" in names else None

            names = await comes(ended, "the preparation fails")
        finally:
            stopping.set()
            await running
    assert names == ["erasure-preparation-begun", "erasure-preparation-ended"]
    assert switched(system, [source for source, _ in parties]) == [
        ("releases-closed", parties[0][1], "service:customer"),
        ("releases-opened", parties[0][1], "service:customer"),
    ]
    recorder = Recorder(system.customer.postgres_url, CUSTOMER_SCHEMA)
    try:
        stored = recorder.read_stream(preparation)
    finally:
        recorder.close()
    events = [catalogue().decode(one).event for one in stored]
    [refused] = [one for one in events if type(one).__name__ == "StepRefused"]
    assert (refused.step, refused.code) == (f"close:{parties[1][1]}", "party-unknown")
    assert stored[-1].name == "saga-ended"

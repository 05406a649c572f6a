"""Peers over HTTP: what an answer means, one that freezes, one that is not there, and the token of the service."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.connections.transient import StoreUnavailable
from chassis.privacy.tokens import verifier_of
from chassis.sagas import HttpPeer, LocalPeer, PeerUnanswered, Request
from chassis.sagas.peers import Carried, RefusedForGood, ServiceToken, outcome_of
from chassis.write.deciding import CommandContext, Refusal, TooManyConflicts

ID = UUID(int=7)
CONTEXT = CommandContext(actor="saga", now=datetime(2026, 1, 5, tzinfo=UTC), command_id=ID)
REQUEST = Request.of("/items/close", item="a")
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.mark.parametrize(
    ("status", "content", "outcome"),
    [
        (200, b"{}", Carried()),
        (201, b"", Carried()),
        (409, b'{"code":"item-closed"}', RefusedForGood("item-closed")),
        (404, b'{"code":"party-unknown","status":404}', RefusedForGood("party-unknown")),
        (404, b'{"code":"route-unknown"}', None),
        (404, b"<html>nothing here</html>", None),
        (409, b'{"code":"too-many-conflicts"}', None),
        (422, b"\xff", None),
        (422, b'{"code":""}', None),
        (401, b'{"code":"unauthenticated"}', None),
        (403, b'{"code":"forbidden"}', None),
        (408, b'{"code":"body-slow"}', None),
        (429, b'{"code":"overloaded"}', None),
        *((status, b'{"code":"in-between"}', None) for status in (405, 413, 421, 425)),
        (422, json.dumps({"code": "x" * 100}).encode(), RefusedForGood("x" * 100)),
        (422, json.dumps({"code": "x" * 101}).encode(), None),
        (422, b'{"code":"a\\nb"}', None),
        (500, b'{"code":"internal-error"}', None),
        (503, b'{"code":"view-behind"}', None),
        (302, b"", None),
    ],
)
def test_a_refusal_is_an_answer_about_the_command_and_nothing_else_is(
    status: int, content: bytes, outcome: object
) -> None:
    if outcome is None:
        with pytest.raises(PeerUnanswered):
            outcome_of(status, content)
    else:
        assert outcome_of(status, content) == outcome


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """A server on loopback; its address."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def token() -> str:
    """Some token."""
    return "token"


async def test_a_command_is_given_with_its_id_and_the_token() -> None:
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readuntil(b"\r\n\r\n")).decode() + (await reader.read(12)).decode())
        body = json.dumps({"code": "no"}).encode()
        writer.write(b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()

    async with listening(serve) as url, HttpPeer(url, token) as peer:
        assert await peer.give(ID, REQUEST, CONTEXT) == RefusedForGood("no")
    [request] = seen
    assert request.startswith("POST /items/close HTTP/1.1")
    assert f"Idempotency-Key: {ID}" in request
    assert "Authorization: Bearer token" in request
    assert request.endswith('{"item":"a"}')


async def test_a_peer_that_never_finishes_its_answer_is_left_after_a_bounded_time() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.02)
        except OSError:
            writer.close()

    async with listening(serve) as url, HttpPeer(url, token, answer_seconds_max=0.2) as peer:
        with pytest.raises(PeerUnanswered, match="TimeoutError"):
            await peer.give(ID, REQUEST, CONTEXT)


async def test_nobody_waits_for_a_turn_with_a_peer_that_answers_nobody() -> None:
    came, heard = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if came.is_set():
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            heard.set()
        came.set()
        await writer.drain()
        await heard.wait()
        writer.close()

    async with (
        listening(serve) as url,
        HttpPeer(url, token, answer_seconds_max=1.0, at_once_max=1) as peer,
    ):
        frozen = asyncio.create_task(peer.give(ID, REQUEST, CONTEXT))
        await came.wait()
        waiting = [asyncio.create_task(peer.give(ID, REQUEST, CONTEXT)) for _ in range(50)]
        with pytest.raises(PeerUnanswered, match="TimeoutError"):
            await frozen
        for one in waiting:
            with pytest.raises(PeerUnanswered, match="others were not answered"):
                await one
        assert await peer.give(ID, REQUEST, CONTEXT) == Carried(), "one after the other it is tried again"
        both = await asyncio.gather(*(peer.give(ID, REQUEST, CONTEXT) for _ in range(2)))
        assert both == [Carried(), Carried()], "once it answers, one waits for its turn again"


async def test_this_context_refuses_for_good_what_its_decider_refuses_and_nothing_else() -> None:
    class Closed(Refusal):
        code = "closed"

    raised: list[Exception] = [Closed(), TooManyConflicts(), StoreUnavailable("x")]

    async def carry_out(request: Request, context: CommandContext) -> None:
        assert (request, context) == (REQUEST, CONTEXT)
        if raised:
            raise raised.pop(0)

    peer = LocalPeer(carry_out)
    assert await peer.give(ID, REQUEST, CONTEXT) == RefusedForGood("closed")
    for transient in (TooManyConflicts, StoreUnavailable):
        with pytest.raises(transient):
            await peer.give(ID, REQUEST, CONTEXT)
    assert await peer.give(ID, REQUEST, CONTEXT) == Carried()


async def test_a_refusal_that_could_be_packed_is_asked_for_as_it_is() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packs = b"gzip" in (await reader.readuntil(b"\r\n\r\n")).lower()
        body = json.dumps({"code": "no", "detail": "x" * 2_000}).encode()
        head = b"Content-Encoding: gzip\r\n" if packs else b""
        body = gzip.compress(body) if packs else body
        writer.write(b"HTTP/1.1 409 Conflict\r\n%sContent-Length: %d\r\n\r\n%s" % (head, len(body), body))
        await writer.drain()
        writer.close()

    async with listening(serve) as url, HttpPeer(url, token) as peer:
        assert await peer.give(ID, REQUEST, CONTEXT) == RefusedForGood("no")


async def test_a_peer_that_is_not_there_is_unanswered() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with listening(serve) as url:
        pass
    async with HttpPeer(url, token) as peer:
        with pytest.raises(PeerUnanswered):
            await peer.give(ID, REQUEST, CONTEXT)


async def test_the_token_of_a_service_is_issued_in_development_and_read_from_its_file_elsewhere(
    tmp_path: Path,
) -> None:
    clock = SystemClock()
    settings = Settings(data=tmp_path, environment="development")
    issued = ServiceToken(settings, "jars", clock)
    caller = verifier_of(settings, clock.now).verify(await issued())
    assert (caller.subject, caller.roles) == ("service:jars", frozenset({"service"}))
    assert await issued() == await issued()

    file = tmp_path / "token"
    named = ServiceToken(Settings(environment="production", service_token_file=file), "jars", clock)
    with pytest.raises(PeerUnanswered, match="cannot be read"):
        await named()
    for content in ("", "x" * 10_000, "ä"):
        file.write_text(content, "utf-8")
        with pytest.raises(PeerUnanswered):
            await named()
    file.write_text("first\n")
    assert await named() == "first"
    file.write_text("second\n")
    assert await named() == "second"
    with pytest.raises(PeerUnanswered, match="names no file"):
        await ServiceToken(Settings(environment="production"), "jars", clock)()


@pytest.mark.parametrize("url", ["ingest", "ftp://x", "http://", "http://user:secret@x", "http://x?a=1"])
def test_an_address_of_a_peer_that_is_none_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="no address of an API") as refused:
        Settings(peer_urls={"ingest": url})
    assert "secret" not in str(refused.value).partition("input_value")[0]

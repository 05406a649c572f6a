"""Responses that last: server-sent events (WHATWG HTML, 9.2), their limits, and how they end.

    data: {"changed":[...]}      an event, with the `id` from which a client goes on: it sends it as `Last-Event-ID`
    id: ...                      a heartbeat, each `HEARTBEAT_SECONDS`; it moves the id on
    event: end                   the last event: why the stream ends

A stream ends when its caller is gone or its token is believed no more, when the client does not read, when what was asked
for means something else by now, when its time is up, and when the process stops. The client then asks again.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from chassis.clock import Clock
from chassis.connections.transient import is_transient
from chassis.ending import ended, set_within
from chassis.observability import metrics
from chassis.privacy.tokens import Caller, KeysUnreadable, TokenInvalid, Verifier
from chassis.web.callers import CALLER_KEY
from chassis.web.openapi import STREAM
from chassis.web.problems import NotReady, Overloaded, TooManyStreams, refusals
from chassis.write.deciding import Refusal

STREAMS_MAX: Final = 1_000
"""Of a process."""
STREAMS_OF_CALLER_MAX: Final = 10
HEARTBEAT_SECONDS: Final = 15.0
"""Also the time after which a token that is believed no more ends the stream. A withdrawn key is noticed within
`REVERIFY_SECONDS_MAX` and `KEYS_READ_AGAIN_SECONDS` of `chassis.privacy.tokens` before."""
SEND_SECONDS_MAX: Final = 20.0
"""After this time in which a client takes nothing its connection is cut."""
STREAM_SECONDS_MAX: Final = 3_600
"""So that clients come to the processes that were started since."""
END_SECONDS_MAX: Final = 2.0
"""Of all streams, when the process stops. What is left then is cut."""
RETRY_MILLISECONDS: Final = 2_000
LAST_EVENT_ID: Final = "Last-Event-ID"
BEGUN_KEY: Final = "chassis.stream-begun"
"""The key in a request's scope of what is called when a stream begins: it is then no request in flight, and has no time
limit. Absent where no body is wanted (HEAD)."""
ABORT_KEY: Final = "chassis.abort"
"""The key in the extensions of a request's scope of what cuts its connection."""

_encode: Final = msgspec.json.Encoder().encode


class Sent(NamedTuple):
    """An event: its name, its data, and the id from which a client that has it goes on."""

    event: str
    data: Any
    id: str


class Source(Protocol):
    """What a stream sends. It calls what it was opened with when there is something new."""

    @property
    def place(self) -> str:
        """The id from which a client goes on that was sent everything so far."""
        ...

    @property
    def ended(self) -> str | None:
        """Why there will be nothing more."""
        ...

    def next(self) -> Sent | None:
        """The next event; None where there is none yet."""
        ...


OpenSource = Callable[[Callable[[], None]], AbstractAsyncContextManager[Source]]
"""Opens what a stream sends; raises a refusal, which is the response then."""
Outdated = Callable[[], Awaitable[str | None]]
"""Why a stream no longer sends what was asked for; None while it does."""


async def _never() -> str | None:
    return None


class Streams:
    """The open streams of a process."""

    def __init__(self, streams_max: int = STREAMS_MAX, of_caller_max: int = STREAMS_OF_CALLER_MAX) -> None:
        self._streams_max = streams_max
        self._of_caller_max = of_caller_max
        self._open: set[EventStream] = set()
        self._of_caller: Counter[str] = Counter()
        self._none = asyncio.Event()
        self._closed = False

    @contextmanager
    def admitted(self, caller: str, stream: "EventStream") -> Iterator[None]:
        """Counts a stream while it is open; raises TooManyStreams, Overloaded, NotReady."""
        if self._closed:
            raise NotReady
        if self._of_caller[caller] >= self._of_caller_max:
            raise TooManyStreams(f"at most {self._of_caller_max}")
        if len(self._open) >= self._streams_max:
            raise Overloaded
        self._open.add(stream)
        self._of_caller[caller] += 1
        metrics.STREAMS_OPEN.set(len(self._open))
        try:
            yield
        finally:
            self._open.discard(stream)
            self._of_caller[caller] -= 1
            if not self._of_caller[caller]:
                del self._of_caller[caller]
            metrics.STREAMS_OPEN.set(len(self._open))
            if not self._open:
                self._none.set()

    async def close(self, seconds_max: float = END_SECONDS_MAX) -> None:
        """Ends all streams at once, and admits none."""
        self._closed = True
        self._none.clear()
        for stream in list(self._open):
            stream.end("stopping")
        if self._open:
            await set_within(self._none, seconds_max)
        for stream in list(self._open):
            stream.cut()


class EventStream(Response):
    """A stream of the events of a source, for `seconds_max` at most; 0 sends what there is, and ends.

    Before each heartbeat it ends where it is `outdated`: the client asks again.
    """

    media_type = STREAM

    def __init__(
        self,
        open: OpenSource,
        status_code: int = 200,  # FastAPI reads the default for its document
        *,
        outdated: Outdated = _never,
        seconds_max: float = STREAM_SECONDS_MAX,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        send_seconds_max: float = SEND_SECONDS_MAX,
    ) -> None:
        super().__init__(
            status_code=status_code, headers={"X-Accel-Buffering": "no"}
        )  # proxies pass each event on at once
        del self.headers["content-length"]
        self._open_source = open
        self._outdated = outdated
        self._seconds_max = seconds_max
        self._heartbeat_seconds = heartbeat_seconds
        self._send_seconds_max = send_seconds_max
        self._wake = asyncio.Event()
        self._ending: str | None = None
        self._abort: Callable[[], None] = lambda: None
        self._send: Send
        self._gone: asyncio.Task[None]

    def end(self, code: str) -> None:
        """Ends the stream with this code, soon."""
        self._ending = self._ending or code
        self._wake.set()

    def cut(self) -> None:
        """Cuts the connection."""
        self._abort()

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["app"].state
        caller: Caller = scope[CALLER_KEY]
        streams: Streams = state.streams
        self._abort = scope.get("extensions", {}).get(ABORT_KEY, self._abort)
        self._send = send
        with streams.admitted(caller.subject, self):
            async with self._open_source(self._wake.set) as source:
                await send(
                    {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
                )
                begun = scope.get(BEGUN_KEY)
                if begun is None:
                    await send({"type": "http.response.body", "body": b""})
                    return
                begun()
                self._gone = asyncio.create_task(_disconnected(receive))
                self._gone.add_done_callback(lambda _: self._wake.set())
                try:
                    code = await self._run(source, _Token(Request(scope), state.verifier, state.clock))
                    metrics.STREAMS_ENDED.labels(code).inc()
                finally:
                    await ended(self._gone)

    async def _run(self, source: Source, token: "_Token") -> str:
        """Sends until there is a reason to end; returns it."""
        now = token.clock.monotonic
        ends_at, beats_at = now() + self._seconds_max, now()
        await self._sent(format_sse_event(retry=RETRY_MILLISECONDS))
        while not self._gone.done():
            self._wake.clear()
            code = self._ending or source.ended or token.invalid()
            if code is None and (event := source.next()) is not None:
                data = _encode(event.data).decode()
                await self._sent(format_sse_event(event=event.event, data_str=data, id=event.id))
                beats_at = now() + self._heartbeat_seconds
                continue
            if code is None and now() >= beats_at and (code := await self._asked_again()) is None:
                await self._sent(format_sse_event(id=source.place))
                beats_at = now() + self._heartbeat_seconds
                continue
            if code is None and now() >= ends_at:
                code = "time-up"
            if code is not None:
                last = format_sse_event(event="end", data_str=_encode({"code": code}).decode())
                await self._sent(last, more=False)
                return code
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(beats_at, ends_at, token.expires_at()) - now())):
                    await self._wake.wait()
        return "gone"

    async def _asked_again(self) -> str | None:
        """Whether it is outdated, where that can be found out now."""
        try:
            return await self._outdated()
        except Exception as error:
            if is_transient(error):
                return None
            raise

    async def _sent(self, content: bytes, *, more: bool = True) -> None:
        """Sends, or cuts the connection of a client that takes nothing, and raises ClientDisconnect."""
        try:
            async with asyncio.timeout(self._send_seconds_max):
                await self._send({"type": "http.response.body", "body": content, "more_body": more})
        except TimeoutError:
            metrics.STREAMS_ENDED.labels("slow").inc()
            self.cut()
            await asyncio.wait([self._gone], timeout=END_SECONDS_MAX)
            raise ClientDisconnect from None


class _Token:
    """The token of a request, which is looked at again while its stream is open."""

    def __init__(self, request: Request, verifier: Verifier, clock: Clock) -> None:
        self.clock = clock
        self._text = request.headers.get("authorization", "").partition(" ")[2].strip()
        self._verifier = verifier
        self._caller: Caller = request.scope[CALLER_KEY]

    def expires_at(self) -> float:
        """When it expires, by the monotonic clock."""
        return self.clock.monotonic() + self._caller.expires_at - self.clock.now().timestamp()

    def invalid(self) -> str | None:
        """Why the caller is believed no more."""
        try:
            self._caller = self._verifier.verify(self._text)
        except TokenInvalid:
            return "unauthenticated"
        except KeysUnreadable:
            return "unavailable"
        return None


async def _disconnected(receive: Receive) -> None:
    """Returns when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


def streamed_as(
    events: Mapping[str, type[BaseModel]], *refused: type[Refusal]
) -> dict[int | str, dict[str, Any]]:
    """For a route's `responses=`: a stream of these events, each with the model of its data, and the refusals of streams beside those
    given."""
    shapes = ", ".join(
        f"`{event}` ({', '.join(f'`{name}`' for name in shape.model_fields)})"
        for event, shape in events.items()
    )
    stream = {
        "description": f"Server-sent events: {shapes}, and at last `end` (`code`); the data is JSON",
        "content": {EventStream.media_type: {"schema": {"type": "string"}}},
    }
    return {200: stream, **refusals(TooManyStreams, Overloaded, *refused)}

"""The ASGI layer before all routes: limits on requests and bytes, the trace, the caller, one log line.

One plain ASGI layer instead of several, because each costs every request.
"""

import asyncio
import json
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from typing import Any, Final, NoReturn

import structlog
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, Span, SpanKind
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.clock import Clock, uuid7
from chassis.observability import metrics, telemetry
from chassis.privacy.tokens import TokenInvalid, Verifier
from chassis.web.answering import Answer
from chassis.web.callers import CALLER_KEY
from chassis.web.problems import (
    BodyOversized,
    BodySlow,
    ContentCodingUnsupported,
    Failed,
    Overloaded,
    RequestInvalid,
    RequestMalformed,
    Unauthenticated,
    Unavailable,
    problem,
)
from chassis.web.streams import BEGUN_KEY
from chassis.write.deciding import Refusal

BODY_BYTES_MAX: Final = 1 << 20
BODY_SECONDS_MAX: Final = 30.0
"""The time from one piece of a body to the next. For JSON, the time for the whole body."""
BODIES_BYTES_MAX: Final = 64 << 20
"""The bytes of all bodies that a process holds at once. A request beyond that is refused with 503."""
REQUESTS_IN_FLIGHT_MAX: Final = 1_000
REQUEST_SECONDS_MAX: Final = 60.0
LONG_REQUEST_SECONDS_MAX: Final = 600.0
JSON_DEPTH_MAX: Final = 64
INTEGER_BITS_MAX: Final = 64
_INTEGER_DIGITS_MAX: Final = 20

UNTRACED: Final = frozenset(("/health/live", "/health/ready", "/metrics"))
"""Paths that are requested every few seconds and need no trace."""
_READ: Final = frozenset(
    (
        b"accept-encoding",
        b"accept-language",
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"if-none-match",
        b"traceparent",
        b"tracestate",
        b"transfer-encoding",
        b"x-request-id",
    )
)
_ONCE: Final = frozenset(
    (
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"file-name",
        b"idempotency-key",
        b"if-match",
    )
)
_UNCODED: Final = frozenset((b"", b"identity"))
_REQUEST_ID: Final = re.compile(rb"[!-~]{1,128}")
_NULL: Final = re.compile(rb"\x00|%00")
_JSON: Final = re.compile(rb"\s*application/(?:[A-Za-z0-9.-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_SUSPECT: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])|[0-9]{18}|NaN|Infinity")
"""Only a JSON text that matches this pattern can hold a value that must be refused."""

_log = structlog.get_logger("access")


class Edge:
    """The outermost layer. `public` are the paths that need no token, None for all of them."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        verifier: Verifier,
        clock: Clock,
        public: Collection[str] | None = (),
        body_limits: Mapping[str, int] | None = None,
        unavailable: tuple[type[Exception], ...] = (ConnectionError,),
        requests_max: int = REQUESTS_IN_FLIGHT_MAX,
        body_seconds: float = BODY_SECONDS_MAX,
        bodies_bytes_max: int = BODIES_BYTES_MAX,
        request_seconds: float = REQUEST_SECONDS_MAX,
    ) -> None:
        self._app = app
        self._verifier = verifier
        self._clock = clock
        self._public = None if public is None else frozenset(public)
        self._body_limits = dict(body_limits or {})
        self._of_templates = [
            (re.compile(re.escape(path).replace(re.escape("{}"), "[^/]+")), limit)
            for path, limit in self._body_limits.items()
            if "{}" in path
        ]
        self._unavailable = unavailable
        self._requests_max = requests_max
        self._body_seconds = body_seconds
        self._request_seconds = request_seconds
        self._in_flight = 0
        self._bodies_bytes_max = bodies_bytes_max
        self._bodies_bytes = 0
        # One entry for each route, method and status: finding a child by its labels costs more than counting.
        self._counted: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._log = structlog.get_logger("access").bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one request, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._clock.monotonic()
        headers: dict[bytes, bytes] = {name: value for name, value in scope["headers"] if name in _READ}
        method = _method(scope)
        if method == "HEAD":
            # The same response without its body. The server reads the method of its own scope.
            scope = {**scope, "method": "GET"}
        held = _Held()
        self._in_flight += 1
        looked_at = scope["path"] in UNTRACED
        with (
            nullcontext(NonRecordingSpan(INVALID_SPAN_CONTEXT))
            if looked_at
            else telemetry.span("http", _carried(headers), kind=SpanKind.SERVER)
        ) as span:
            answer = Answer(
                send,
                method,
                self._named(headers),
                headers.get(b"if-none-match", b""),
                headers.get(b"accept-encoding", b""),
            )
            try:
                await self._answered(scope, receive, answer, headers, held)
            finally:
                self._in_flight -= held.in_flight
                self._bodies_bytes -= held.bytes
                now = self._clock.monotonic()
                answered = now if held.streams_since is None else held.streams_since
                self._told(scope, method, answer, span, answered - began, now - began)

    def _seconds_max(self, scope: Scope) -> float:
        """The time limit of a request, longer where its route takes larger bodies.

        Beyond it the response is 503.
        """
        own = self._own_limit(scope["path"])
        return self._request_seconds if own is None else LONG_REQUEST_SECONDS_MAX

    def _own_limit(self, path: str) -> int | None:
        """The limit of bodies of the route at this path, where it has one of its own."""
        found = self._body_limits.get(path)
        if found is None and self._of_templates:
            found = next((limit for template, limit in self._of_templates if template.fullmatch(path)), None)
        return found

    async def _answered(
        self,
        scope: Scope,
        receive: Receive,
        answer: Answer,
        headers: dict[bytes, bytes],
        held: "_Held",
    ) -> None:
        try:
            if self._in_flight > self._requests_max:
                raise Overloaded
            _once_only(scope)
            self._admitted(scope, headers)
            bounded = await self._bounded(scope, receive, headers, held)
            async with asyncio.timeout(self._seconds_max(scope)) as limit:
                if not answer.bodyless:
                    scope[BEGUN_KEY] = lambda: self._streams(held, limit)
                await self._app(scope, bounded, answer)
        except ClientDisconnect:
            answer.gone = True
        except Refusal as refusal:
            await self._refused(refusal, scope, receive, answer, headers)
        except self._unavailable as error:
            _log.warning(
                "a server does not answer", error=type(error).__qualname__, where=telemetry.places(error)
            )
            await self._refused(Unavailable(), scope, receive, answer, headers)
        except Exception as error:
            _log.exception("a request failed", route=_route(scope), method=scope["method"])
            if answer.status:
                raise  # a part of the response was sent: the server closes the connection
            del error
            await self._refused(Failed(), scope, receive, answer, headers)

    def _streams(self, held: "_Held", limit: asyncio.Timeout) -> None:
        """A stream begins: the limits of requests are not its limits (`chassis.web.streams`)."""
        limit.reschedule(None)
        self._in_flight -= held.in_flight
        held.in_flight = 0
        held.streams_since = self._clock.monotonic()

    async def _refused(
        self, refusal: Refusal, scope: Scope, receive: Receive, answer: Answer, headers: dict[bytes, bytes]
    ) -> None:
        if not answer.status:
            accepted = headers.get(b"accept-language", b"").decode("latin-1")
            await problem(refusal, accepted)(scope, receive, answer)

    def _admitted(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Verifies the caller; raises Unauthenticated or RequestMalformed."""
        path: str = scope["path"]
        if self._public is not None and path not in self._public:
            kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
            if kind.lower() != "bearer" or not token:
                raise Unauthenticated
            try:
                scope[CALLER_KEY] = self._verifier.verify(token.strip())
            except TokenInvalid as error:
                raise Unauthenticated(str(error)) from error
        if "\x00" in path or _NULL.search(scope["query_string"]):
            raise RequestMalformed("a null byte")

    def _hold(self, held: "_Held", size: int) -> None:
        """Counts a body as held until its request is answered; raises Overloaded where all bodies exceed the
        limit."""
        more = max(size - held.bytes, 0)
        if self._bodies_bytes + more > self._bodies_bytes_max:
            raise Overloaded
        self._bodies_bytes += more
        held.bytes += more

    async def _bounded(
        self, scope: Scope, receive: Receive, headers: dict[bytes, bytes], held: "_Held"
    ) -> Receive:
        """Reads a body up to the limit of its route, and refuses one with a content coding. JSON is read whole, checked
        and passed on."""
        own = self._own_limit(scope["path"])
        bytes_max = BODY_BYTES_MAX if own is None else own
        said = headers.get(b"content-length", b"0")
        if not said.isdigit() or len(said) > 18:
            raise RequestMalformed("Content-Length is no number")
        coding = headers.get(b"content-encoding", b"").strip().lower()
        if coding not in _UNCODED and (int(said) or b"transfer-encoding" in headers):
            raise ContentCodingUnsupported
        if int(said) > bytes_max:
            raise BodyOversized(f"more than {bytes_max} bytes")
        if int(said) and self._bodies_bytes + int(said) > self._bodies_bytes_max:
            raise Overloaded  # bytes are counted as they arrive: a Content-Length alone reserves no memory
        if _JSON.fullmatch(headers.get(b"content-type", b"")):
            try:
                async with asyncio.timeout(self._body_seconds):
                    body = await _whole(receive, bytes_max, lambda size: self._hold(held, size))
            except TimeoutError as error:
                raise BodySlow from error
            check_json(body)
            return _given_again(body, receive)
        read, waiting = 0, True

        async def counted() -> Message:
            nonlocal read, waiting
            try:
                async with asyncio.timeout(self._body_seconds if waiting else None):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(BodySlow.status) from error
            waiting = message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > bytes_max:
                raise HTTPException(BodyOversized.status)
            try:
                self._hold(held, read)
            except Overloaded as overloaded:
                raise HTTPException(Overloaded.status) from overloaded
            return message

        return counted

    def _named(self, headers: dict[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """The ids of this request for logs and headers: the caller's own where it sent one, and the trace's."""
        trace = (telemetry.trace_id() or "").encode()
        given = headers.get(b"x-request-id", b"")
        if not _REQUEST_ID.fullmatch(given):
            given = trace or uuid7(self._clock.now()).hex.encode()
        named = [(b"x-request-id", given)]
        return [*named, (b"x-trace-id", trace)] if trace else named

    def _told(
        self, scope: Scope, method: str, answer: Answer, span: Span, answered_seconds: float, seconds: float
    ) -> None:
        route, status = _route(scope), answer.status or 499
        counted = self._counted.get((method, route, status))
        if counted is None:
            counted = metrics.REQUESTS.labels(method, route, status), metrics.REQUEST_SECONDS.labels(route)
            self._counted[method, route, status] = counted
        counted[0].inc()
        counted[1].observe(answered_seconds)
        if span.is_recording():
            span.update_name(f"{method} {route}")
            span.set_attribute("http.request.method", method)
            span.set_attribute("http.route", route)
            span.set_attribute("http.response.status_code", status)
        if status == 500 or scope["path"] not in (self._public or ()):
            _log.info(
                "request", method=method, route=route, status=status, milliseconds=round(seconds * 1000, 2)
            )


class _Held:
    """What is counted for a request: body bytes, itself as in flight; and since when it is a stream, if it is one."""

    __slots__ = ("bytes", "in_flight", "streams_since")

    def __init__(self) -> None:
        self.bytes = 0
        self.in_flight = 1
        self.streams_since: float | None = None


def _once_only(scope: Scope) -> None:
    """Raises RequestMalformed where a decisive header comes twice: another reader might use the other one."""
    names = [name for name, _ in scope["headers"] if name in _ONCE]
    if len(names) != len(set(names)):
        raise RequestMalformed("a header that may stand once stands twice")


def _carried(headers: dict[bytes, bytes]) -> dict[str, str | None]:
    parent = headers.get(b"traceparent")
    if parent is None:
        return {}
    state = headers.get(b"tracestate")
    return {
        "traceparent": parent.decode("latin-1"),
        "tracestate": None if state is None else state.decode("latin-1"),
    }


def _route(scope: Scope) -> str:
    """The template of the path. The path itself may contain personal data."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "unmatched"


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in _METHODS else "other"


_METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"))


async def _whole(receive: Receive, bytes_max: int, hold: Callable[[int], None]) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        size += len(part)
        if size > bytes_max:
            raise BodyOversized(f"more than {bytes_max} bytes")
        hold(size)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def _given_again(body: bytes, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def check_json(body: bytes) -> None:
    """Refuses JSON that our stores or other readers could not hold: text that is not Unicode or has a null
    character, integers beyond 64 bits, NaN, more than `JSON_DEPTH_MAX` levels, a name twice in one object,
    of which each reader would take another. Broken syntax is left to the route's own reader."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestMalformed("the body is not UTF-8") from error
    deep = text.count("[") + text.count("{") > JSON_DEPTH_MAX
    suspect = deep or _SUSPECT.search(text) is not None or "\x00" in text
    try:
        value = json.loads(text, parse_int=_integer, parse_constant=_constant, object_pairs_hook=_object)
    except json.JSONDecodeError:
        return
    except RecursionError as error:
        raise RequestInvalid(f"more than {JSON_DEPTH_MAX} levels") from error
    if suspect:
        _look(value, JSON_DEPTH_MAX)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RequestInvalid("a name stands twice in one object")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _INTEGER_DIGITS_MAX or int(digits).bit_length() >= INTEGER_BITS_MAX:
        raise RequestInvalid(f"an integer beyond {INTEGER_BITS_MAX} bits")
    return int(digits)


def _constant(_: str) -> NoReturn:
    raise RequestInvalid("NaN and Infinity are no numbers of JSON")


def _look(value: Any, depth: int) -> None:
    if isinstance(value, str):
        if "\x00" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise RequestInvalid("text with a null character or half a character")
        return
    if depth == 0 and isinstance(value, dict | list):
        raise RequestInvalid(f"more than {JSON_DEPTH_MAX} levels")
    if isinstance(value, dict):
        for name, inner in value.items():
            _look(name, depth)
            _look(inner, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            _look(inner, depth - 1)

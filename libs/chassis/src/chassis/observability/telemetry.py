"""Traces and logs: one trace id from the HTTP call or feed record to the view, and one JSON object per log
line.

Traces leave the process only where an OTLP endpoint is configured. Without one, spans are not recorded.
Their ids are still passed on, so that the stored events and log lines of one request have one trace id.
"""

import json
import logging
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from functools import lru_cache
from threading import Thread
from types import TracebackType
from typing import Any, Final, TextIO

import msgspec
import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

Carrier = Mapping[str, str | None]
"""`traceparent` and `tracestate` (W3C Trace Context), as stored with an event and sent in headers."""

REDACTED: Final = "[redacted]"
LOGGED_CHARACTERS_MAX: Final = 500
LOGGED_WORDS: Final = frozenset(
    [
        "at",
        "event",
        "export",
        "level",
        "timestamp",
        "logger",
        "trace_id",
        "span_id",
        "service",
        "role",
        "error",
        "where",
        "method",
        "route",
        "status",
        "milliseconds",
        "bytes",
        "code",
        "context",
        "group",
        "view",
        "topic",
        "partition",
        "offset",
        "position",
        "epoch",
        "type",
        "version",
        "attempt",
        "seconds",
        "count",
        "events",
        "subject",
        "reason",
        "port",
        "host",
        "pid",
        "records",
        "posted",
        "duplicates",
        "quarantined",
        "certificate",
        "reasons",
        "least",
        "batch",
        "lag_seconds",
        "lag_events",
        "parked",
        "dead_letters",
        "window",
        "source",
        "run",
        "timer",
        "saga",
        "step",
        "code",
        "file_id",
        "object_id",
        "objects",
        "ended",
        "deleted",
        "unfinished",
    ]
)
"""The words that a log line may have. All others are redacted, because an unknown word may be a person's
name."""

OTLP_HTTP: Final = "http/protobuf"
OTLP_GRPC: Final = "grpc"
SENDING_SECONDS_MAX: Final = 5
CONTEXTS_CACHED_MAX: Final = 1_024
"""The events of one feed have the same trace context."""
_IDS: Final = RandomIdGenerator()
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class _Tracing:
    """The process's tracer. It has a provider of its own, so that each test can have one."""

    tracer: Tracer = TracerProvider(sampler=ALWAYS_OFF).get_tracer("chassis")
    recording = False


def configure_tracing(
    service: str,
    *,
    endpoint: str | None = None,
    protocol: str = OTLP_HTTP,
    exporter: SpanExporter | None = None,
) -> TracerProvider:
    """Sets the tracer of this process. `exporter` (tests) gets every span at once.

    `endpoint` is an OTLP collector, `protocol` its protocol (OTEL_EXPORTER_OTLP_PROTOCOL). A process whose
    traces cannot be sent starts all the same: traces are then not recorded, and a log line says so.
    """
    sending = None
    if endpoint is not None:
        try:
            sending = BatchSpanProcessor(
                _otlp(endpoint, protocol), export_timeout_millis=SENDING_SECONDS_MAX * 1000
            )
        except Exception as error:  # noqa: BLE001 - whatever a setting does to an exporter, the work goes on
            structlog.get_logger(__name__).warning("traces are not sent", error=type(error).__qualname__)
    recording = exporter is not None or sending is not None
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}),
        sampler=ALWAYS_ON if recording else ALWAYS_OFF,
        shutdown_on_exit=False,
    )
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    if sending is not None:
        provider.add_span_processor(sending)
    _Tracing.tracer = provider.get_tracer("chassis")
    _Tracing.recording = recording
    return provider


def end_tracing(provider: TracerProvider) -> None:
    """Sends the spans that wait, for at most `SENDING_SECONDS_MAX`: a collector that is gone does not delay
    the end."""
    ending = Thread(target=provider.shutdown, daemon=True)
    ending.start()
    ending.join(SENDING_SECONDS_MAX)


def _otlp(endpoint: str, protocol: str) -> SpanExporter:
    """An exporter; loaded only where it is asked for, because the two are half a process's imports."""
    if protocol == OTLP_GRPC:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=SENDING_SECONDS_MAX)
    if protocol != OTLP_HTTP:
        raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol}; there are {OTLP_HTTP} and {OTLP_GRPC}")
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=SENDING_SECONDS_MAX)


def carrier() -> dict[str, str]:
    """The current trace context, to be stored with an event or sent along; empty where there is none."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid:
        return {}
    carried = {"traceparent": f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"}
    if found.trace_state:
        carried["tracestate"] = found.trace_state.to_header()
    return carried


def trace_id() -> str | None:
    """The current trace id, 32 hexadecimal digits."""
    found = trace.get_current_span().get_span_context()
    return f"{found.trace_id:032x}" if found.is_valid else None


@contextmanager
def attached(carried: Carrier | None) -> Iterator[None]:
    """Continues the trace that a carrier names. Records published and lines logged inside belong to it."""
    token = otel_context.attach(extracted(carried))
    try:
        yield
    finally:
        otel_context.detach(token)


class span:
    """A span, in the trace of `carried` where given (an empty one begins a trace), else of the current one.

    Attributes hold no personal value. Where spans are not recorded, only their ids are made, at a fifth of
    the cost.
    """

    __slots__ = ("_attributes", "_carried", "_kind", "_name", "_span", "_token")

    def __init__(
        self,
        name: str,
        carried: Carrier | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Mapping[str, str | int] | None = None,
    ) -> None:
        self._name = name
        self._carried = carried
        self._kind = kind
        self._attributes = attributes

    def __enter__(self) -> Span:
        parent = otel_context.get_current() if self._carried is None else extracted(self._carried)
        if _Tracing.recording:
            self._span = _Tracing.tracer.start_span(
                self._name, context=parent, kind=self._kind, attributes=self._attributes
            )
        else:
            self._span = _ids_only(parent)
        self._token = otel_context.attach(trace.set_span_in_context(self._span, parent))
        return self._span

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        otel_context.detach(self._token)
        if isinstance(error, Exception):
            self._span.set_status(Status(StatusCode.ERROR, type(error).__qualname__))
        self._span.end()


def _ids_only(parent: otel_context.Context) -> Span:
    above = trace.get_current_span(parent).get_span_context()
    if above.is_valid:
        found = SpanContext(
            above.trace_id, _IDS.generate_span_id(), False, above.trace_flags, above.trace_state
        )
    else:
        found = SpanContext(_IDS.generate_trace_id(), _IDS.generate_span_id(), False)
    return NonRecordingSpan(found)


def extracted(carried: Carrier | None) -> otel_context.Context:
    """The context that a carrier names; an empty one where it names none that is valid."""
    known = {name: value for name, value in (carried or {}).items() if value is not None}
    return _extracted(tuple(known.items())) if known else otel_context.Context()


@lru_cache(CONTEXTS_CACHED_MAX)
def _extracted(carried: tuple[tuple[str, str], ...]) -> otel_context.Context:
    return _PROPAGATOR.extract(dict(carried), context=otel_context.Context())


def _with_trace(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    found = trace.get_current_span().get_span_context()
    if found.is_valid:
        line["trace_id"] = f"{found.trace_id:032x}"
        line["span_id"] = f"{found.span_id:016x}"
    return line


def redacted(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keeps the values that are known to be harmless.

    Of an exception it keeps class and place, never text or values.
    """
    failure = line.pop("exc_info", None)
    error = sys.exc_info()[1] if failure is True else failure[1] if isinstance(failure, tuple) else failure
    if isinstance(error, BaseException):
        line.setdefault("error", type(error).__qualname__)
        line["where"] = places(error)
    for word, value in line.items():
        if word not in LOGGED_WORDS:
            line[word] = value if _is_figure(value) else REDACTED
        elif isinstance(value, str):
            # Database errors repeat the row on their later lines.
            line[word] = value.partition("\n")[0][:LOGGED_CHARACTERS_MAX]
    return line


def _is_figure(value: Any) -> bool:
    """Whether a number is a count or duration, which is not personal. A longer number may be a person's."""
    return value is None or isinstance(value, bool) or (isinstance(value, int | float) and abs(value) < 10**9)


def places(error: BaseException, frames_max: int = 8) -> list[str]:
    """Where an error came from, innermost last: file, line and function, which hold nothing personal."""
    found = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        found.append(f"{code.co_filename.rpartition('/')[2]}:{step.tb_lineno} {code.co_name}")
        step = step.tb_next
    return found[-frames_max:]


_encode: Final = msgspec.json.Encoder(enc_hook=str).encode


def _as_json(line: Any, **_: Any) -> str:
    try:
        return _encode(line).decode()
    except (
        UnicodeEncodeError,
        TypeError,
        RecursionError,
    ):  # a lone surrogate or a key that is no text must not lose the log line
        return json.dumps(line, default=str, skipkeys=True)


def configure_logging(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Logs one JSON object per line, by default to standard error.

    Lines of libraries that use `logging` are included.
    """
    number = logging.getLevelNamesMapping()[level.upper()]

    def named(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        line["service"] = service
        return line

    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        named,
        _with_trace,
        redacted,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(_as_json)],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(_as_json),
            ],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(number, logging.WARNING))

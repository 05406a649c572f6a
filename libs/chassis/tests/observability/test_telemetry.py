"""Logs that hold nobody's name, and one trace id all the way."""

import ast
import io
import json
import logging
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
import structlog
from chassis.clock import SystemClock
from chassis.connections.settings import Settings
from chassis.observability import telemetry
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    telemetry.configure_logging("boxes", stream=stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    before = telemetry._Tracing.tracer, telemetry._Tracing.recording
    telemetry.configure_tracing("boxes", exporter=exporter)
    yield exporter
    telemetry._Tracing.tracer, telemetry._Tracing.recording = before


def told(lines: io.StringIO) -> dict:
    [line] = lines.getvalue().splitlines()
    return json.loads(line)


def sampled(carried: dict[str, str]) -> bool:
    return bool(int(carried["traceparent"][-2:], 16) & 1)


@pytest.mark.requirement("D10", "M44")
def test_a_line_is_json_with_its_trace(lines):
    with telemetry.span("work") as span:
        structlog.get_logger("x").info("batch applied", group="boxes.v1", count=3)
    line = told(lines)
    assert (line["event"], line["group"], line["count"], line["service"]) == (
        "batch applied",
        "boxes.v1",
        3,
        "boxes",
    )
    assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"


@pytest.mark.requirement("R087")
def test_words_that_nobody_thought_of_are_redacted(lines):
    structlog.get_logger("x").info(
        "seen", name_of_holder="张三", phone=13800138000, query="?reference=A:1", retries=2
    )
    line = told(lines)
    assert line["name_of_holder"] == line["phone"] == line["query"] == telemetry.REDACTED
    assert line["retries"] == 2
    assert "张三" not in lines.getvalue()


def test_text_that_is_no_unicode_does_not_silence_a_line(lines):
    structlog.get_logger("x").warning("half \ud83d", reason="x")
    assert told(lines)["reason"] == "x"


def test_an_exception_gives_its_class_and_place_and_not_its_text(lines):
    try:
        raise ValueError("card 6222 0000 of Zhang San")
    except ValueError:
        structlog.get_logger("x").exception("failed")
    line = told(lines)
    assert line["error"] == "ValueError"
    assert line["where"][-1].startswith("test_telemetry.py:")
    assert "Zhang" not in lines.getvalue()


def test_libraries_speak_json_too_and_a_database_error_s_row_is_cut_off(lines):
    logging.getLogger("driver").warning("duplicate key\nDETAIL: Key (name)=(Zhang San)")
    try:
        raise RuntimeError("Zhang San")
    except RuntimeError:
        logging.getLogger("driver").exception("lost")
    first, second = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (first["event"], first["level"], first["logger"]) == ("duplicate key", "warning", "driver")
    assert second["error"] == "RuntimeError"
    assert "Zhang" not in lines.getvalue()


def test_a_trace_goes_on_where_its_carrier_is_attached(spans):
    with telemetry.span("http", {}) as outer:
        carried = telemetry.carrier()
        assert sampled(carried)
    assert telemetry.carrier() == {}
    with telemetry.attached(carried), telemetry.span("relay"):
        relayed = telemetry.carrier()
    with telemetry.span("view", relayed):
        assert telemetry.trace_id() == f"{outer.get_span_context().trace_id:032x}"
    names = {span.name: span for span in spans.get_finished_spans()}
    assert {span.context.trace_id for span in names.values()} == {outer.get_span_context().trace_id}
    assert names["relay"].parent.span_id == names["http"].context.span_id
    assert names["view"].parent.span_id == names["relay"].context.span_id


def test_without_an_exporter_ids_go_on_and_nothing_is_recorded():
    telemetry.configure_tracing("boxes")
    with telemetry.span("http", {}) as span:
        assert not span.is_recording()
        carried = telemetry.carrier()
    assert not sampled(carried)
    with telemetry.span("view", carried):
        assert telemetry.trace_id() == carried["traceparent"].split("-")[1]


def test_an_invalid_carrier_begins_a_trace_of_its_own():
    for wrong in (
        {"traceparent": "x"},
        {"traceparent": None},
        {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"},
    ):
        with telemetry.span("view", wrong):
            assert telemetry.trace_id() is not None


@pytest.fixture
def grpc_collector() -> Iterator[tuple[str, list[bytes]]]:
    """As `collector`, over gRPC."""
    got: list[bytes] = []

    class Collecting(grpc.GenericRpcHandler):
        def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            def took(body: bytes, _: object) -> bytes:
                got.append(call.method.encode() + b" " + body)
                return b""

            return grpc.unary_unary_rpc_method_handler(took)

    server = grpc.server(ThreadPoolExecutor(1), handlers=[Collecting()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"http://127.0.0.1:{port}", got
    server.stop(0).wait()


@pytest.fixture
def tracer_before() -> Iterator[None]:
    before = telemetry._Tracing.tracer, telemetry._Tracing.recording
    yield
    telemetry._Tracing.tracer, telemetry._Tracing.recording = before


@pytest.mark.requirement("D10", "M44")
@pytest.mark.parametrize(
    ("fixture", "protocol"), [("collector", "http/protobuf"), ("grpc_collector", "grpc")]
)
def test_spans_arrive_at_a_collector(request, tracer_before, fixture, protocol):
    endpoint, got = request.getfixturevalue(fixture)
    provider = telemetry.configure_tracing("boxes", endpoint=endpoint, protocol=protocol)
    with telemetry.span("work that is traced") as span:
        trace = span.get_span_context().trace_id.to_bytes(16, "big")
    telemetry.end_tracing(provider)
    [sent] = got
    for part in (b"race", b"boxes", b"work that is traced", trace):
        assert part in sent


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc", "carrier pigeon"])
def test_a_collector_that_is_not_there_stops_nobody(tracer_before, lines, protocol):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        provider = telemetry.configure_tracing(
            "boxes", endpoint=f"http://127.0.0.1:{port}", protocol=protocol
        )
        with telemetry.span("work"):
            assert telemetry.trace_id() is not None
        began = SystemClock().monotonic()
        telemetry.end_tracing(provider)
        assert SystemClock().monotonic() - began < telemetry.SENDING_SECONDS_MAX + 2
    if protocol == "carrier pigeon":
        events = [json.loads(line)["event"] for line in lines.getvalue().splitlines()]
        assert "traces are not sent" in events


def test_every_word_that_our_code_logs_is_one_that_a_line_may_have():
    root = Path(__file__).parents[4]
    logged = {
        (source.name, word.arg)
        for pattern in ("libs/*/src/**/*.py", "services/*/src/**/*.py", "cli/src/**/*.py")
        for source in root.glob(pattern)
        for call in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and re.search(r"(?:^|\W)_log$", ast.unparse(call.func).rpartition(".")[0])
        for word in call.keywords
    }
    assert len(logged) > 20
    assert {
        (name, word) for name, word in logged if word not in telemetry.LOGGED_WORDS | {"exc_info"}
    } == set()


def test_the_standard_variables_of_telemetry_are_settings(monkeypatch):
    given = {"OTEL_SERVICE_NAME": "bank", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://here:4317"}
    for name, value in {**given, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}.items():
        monkeypatch.setenv(name, value)
    settings = Settings(postgres_url="postgresql://nowhere/")
    assert (settings.otel_service_name, settings.otlp_endpoint, settings.otlp_protocol) == (
        "bank",
        "http://here:4317",
        "grpc",
    )

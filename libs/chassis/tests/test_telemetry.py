"""Logs that hold nobody's name, and one trace id all the way."""

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from chassis import telemetry
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


def test_an_endpoint_without_its_exporter_is_a_clear_error():
    with pytest.raises(RuntimeError, match="opentelemetry-exporter-otlp-proto-http"):
        telemetry.configure_tracing("boxes", endpoint="http://127.0.0.1:4318")


def test_every_word_that_our_code_logs_is_one_that_a_line_may_have():
    root = Path(__file__).parents[3]
    logged = {
        (source.name, word.arg)
        for pattern in ("libs/*/src/**/*.py", "services/*/src/**/*.py", "cli/src/**/*.py")
        for source in root.glob(pattern)
        for call in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func).rpartition(".")[0].endswith("_log")
        for word in call.keywords
    }
    assert len(logged) > 20
    assert {
        (name, word) for name, word in logged if word not in telemetry.LOGGED_WORDS | {"exc_info"}
    } == set()

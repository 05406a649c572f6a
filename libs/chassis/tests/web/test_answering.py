"""What becomes of answers on their way out, and what of a request nobody described."""

import gzip
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from chassis.connections.settings import Settings
from chassis.observability import telemetry
from chassis.web import create_app
from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from .conftest import boxes_router


async def test_head_is_get_without_its_body(client):
    whole = await client.get("/boxes")
    head = await client.head("/boxes")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]
    assert head.headers["etag"] == whole.headers["etag"]
    assert (await client.head("/boxes/99")).status_code == 404
    assert (await client.head("/health/live")).status_code == 200


async def test_a_request_with_the_current_etag_gets_304(client):
    for path in ("/boxes", "/boxes/1"):
        tag = (await client.get(path)).headers["etag"]
        for said in (tag, f'"other", {tag}', "*", tag.removeprefix("W/")):
            again = await client.get(path, headers={"If-None-Match": said})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200


async def test_long_responses_are_compressed_where_the_client_accepts_it(client):
    plain = await client.get("/boxes", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    page = await client.get("/openapi.json", headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert page.headers["content-encoding"] == "gzip"
    assert page.headers["vary"] == "Accept-Encoding"
    assert int(page.headers["content-length"]) * 3 < len(page.content)
    for unwilling in ("gzip;q=0", "gzip;q=0.0", "br", ""):
        page = await client.get("/openapi.json", headers={"Accept-Encoding": unwilling})
        assert "content-encoding" not in page.headers


async def test_a_response_bears_the_ids_of_its_request_and_its_trace(client):
    answer = await client.get("/boxes", headers={"X-Request-ID": "desk-7/42"})
    assert answer.headers["x-request-id"] == "desk-7/42"
    assert len(answer.headers["x-trace-id"]) == 32
    for odd in ("", "x" * 129, "two words", "\xff"):
        answer = await client.get("/boxes/99", headers={"X-Request-ID": odd.encode("latin-1")})
        assert answer.headers["x-request-id"] == answer.headers["x-trace-id"] == answer.json()["trace_id"]


async def test_a_parameter_that_no_route_reads_is_refused_by_name(client):
    answer = await client.get("/boxes", params={"limt": 3, "limit": 3})
    assert answer.status_code == 422
    assert [(each["part"], each["place"]) for each in answer.json()["errors"]] == [("query", "limt")]
    assert (await client.get("/boxes", params={"limit": 3})).status_code == 200


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 201),
        ("application/json; charset=utf-8", 201),
        ("application/vnd.boxes+json", 201),
        ("text/xml", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
    ],
)
async def test_a_media_type_that_the_route_does_not_take_is_415(client, kind, status):
    answer = await client.post(
        "/boxes",
        content=json.dumps({"label": "x"}),
        headers={"Content-Type": kind, "Idempotency-Key": f"k{len(kind)}"},
    )
    assert answer.status_code == status, answer.text
    if status == 415:
        assert answer.json()["code"] == "media-type-unsupported"


CODED = [
    ("/boxes", "application/json", b'{"label": "x"}'),
    ("/boxes/1/bytes", "text/plain", b"12345"),
]


@pytest.mark.parametrize(("path", "kind", "body"), CODED)
@pytest.mark.parametrize("coding", ["gzip", "GZIP", "br", "deflate", "identity, gzip", "x\x00y"])
@pytest.mark.parametrize("in_pieces", [False, True])
async def test_a_body_with_a_content_coding_is_415(client, path, kind, body, coding, in_pieces):
    async def pieces() -> AsyncIterator[bytes]:
        yield gzip.compress(body)

    answer = await client.post(
        path,
        content=pieces() if in_pieces else gzip.compress(body),
        headers={"Content-Type": kind, "Content-Encoding": coding, "Idempotency-Key": "coded"},
    )
    assert answer.status_code == 415, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "content-coding-unsupported"
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(("path", "kind", "body"), CODED)
async def test_a_body_without_a_content_coding_may_say_so(client, path, kind, body):
    said = {"Content-Type": kind, "Content-Encoding": "Identity", "Idempotency-Key": "uncoded"}
    assert (await client.post(path, content=body, headers=said)).is_success


async def test_a_content_coding_of_no_body_is_none_and_one_that_stands_twice_is_400(client, anybody):
    assert (await client.get("/boxes", headers={"Content-Encoding": "gzip"})).status_code == 200
    twice = [("Content-Encoding", "gzip"), ("Content-Encoding", "identity"), ("Content-Type", "text/plain")]
    assert (await client.post("/boxes/1/bytes", content=b"1", headers=twice)).status_code == 400
    del anybody.headers["Authorization"]
    said = {"Content-Encoding": "gzip", "Content-Type": "text/plain"}
    assert (await anybody.post("/boxes/1/bytes", content=b"1", headers=said)).status_code == 401


async def test_only_what_is_read_has_a_tag_of_its_body(client):
    sent = await client.post("/boxes/1/bytes", content=b"12345", headers={"Content-Type": "text/plain"})
    assert (sent.status_code, "etag" in sent.headers) == (200, False)
    assert "etag" in (await client.get("/boxes")).headers


async def test_options_names_the_methods_of_a_path(client):
    answer = await client.options("/boxes")
    assert (answer.status_code, answer.headers["allow"]) == (204, "GET, HEAD, OPTIONS, POST")


async def test_pages_of_an_origin_that_the_settings_name_may_call(settings: Settings, views):
    asked = {"Origin": "https://desk.bank", "Access-Control-Request-Method": "POST"}
    for origins, status in (("https://desk.bank,https://other.bank", 200), ("https://other.bank", 400)):
        app = create_app(
            "boxes", [boxes_router(views)], settings.model_copy(update={"cors_origins": origins})
        )
        async with _client(app) as client:
            answer = await client.options("/boxes", headers=asked)
            assert answer.status_code == status
            allowed = answer.headers.get("access-control-allow-origin")
            assert allowed == ("https://desk.bank" if status == 200 else None)
    async with _client(create_app("boxes", [boxes_router(views)], settings)) as client:
        assert (await client.options("/boxes", headers=asked)).status_code == 401


async def test_the_pages_for_a_browser_need_no_token_and_load_nothing_from_elsewhere(anybody):
    index = await anybody.get("/", headers={"Accept": "text/html"})
    assert "/docs" in index.text
    assert (await anybody.get("/")).json()["places"].keys() == {
        "/docs",
        "/openapi.json",
        "/health/ready",
        "/metrics",
    }
    page = await anybody.get("/docs")
    loaded = [part.partition('"')[0] for part in page.text.split('src="')[1:] + page.text.split('href="')[1:]]
    assert len(loaded) == 3
    for path in loaded:
        assert path.startswith("/docs/")
        file = await anybody.get(path)
        assert file.status_code == 200
        assert len(file.content) > 80
    assert "http" not in page.text
    assert (await anybody.get("/docs/index.html")).status_code == 401


def _client(app: FastAPI):
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://boxes")


async def test_health_and_metrics_are_in_no_trace(client):
    exporter, before = InMemorySpanExporter(), (telemetry._Tracing.tracer, telemetry._Tracing.recording)
    telemetry.configure_tracing("boxes", exporter=exporter)
    try:
        for path in ("/health/live", "/health/ready", "/metrics", "/boxes"):
            await client.get(path)
    finally:
        telemetry._Tracing.tracer, telemetry._Tracing.recording = before
    assert [span.name for span in exporter.get_finished_spans()] == ["GET /boxes"]

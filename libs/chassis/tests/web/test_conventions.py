"""The conventions of HTTP, over a small application."""

import asyncio
import io
import json
import logging

import httpx
import pytest
import structlog
from chassis.observability import telemetry
from chassis.web import (
    CommandBody,
    Commanding,
    DatedBody,
    DatedExplainedBody,
    ExplainedBody,
    Permitted,
    Reason,
    create_app,
)
from chassis.web.app import (
    UNAVAILABLE,
    CommandUndated,
    CommandWithoutReason,
    RouteHidden,
    RouteWithoutRoles,
)
from chassis.web.edge import BODY_BYTES_MAX, UNTRACED, Edge
from chassis.web.problems import language
from fastapi import APIRouter, Depends
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.support.rights import over_all

from .conftest import boxes_router

KEYED = {"Idempotency-Key": "k1"}


def is_problem(answer: httpx.Response, status: int, code: str) -> dict:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    content = answer.json()
    assert (answer.status_code, content["status"], content["code"]) == (status, status, code)
    assert content["type"] == f"urn:crm:problem:{code}"
    traced = str(answer.request.url.path) not in UNTRACED
    assert len(content.get("trace_id", "")) == (32 if traced else 0)
    return content


async def test_a_request_without_a_valid_token_gets_401_and_nothing_else(anybody):
    for method, path in [("GET", "/boxes"), ("POST", "/boxes"), ("GET", "/nowhere"), ("TRACE", "/boxes")]:
        answer = await anybody.request(method, path, content=b"{" if method == "POST" else None)
        is_problem(answer, 401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    for wrong in ("Basic abc", "Bearer", "Bearer a.b.c", "Bearer \xff", "bearer x"):
        answer = await anybody.get("/boxes", headers={"Authorization": wrong.encode("latin-1")})
        is_problem(answer, 401, "unauthenticated")


def test_a_route_that_takes_no_caller_cannot_be_served(settings):
    router = APIRouter()

    @router.get("/open")
    async def open_to_all() -> dict[str, str]:
        return {}

    with pytest.raises(RouteWithoutRoles, match="/open"):
        create_app("open", [router], settings)


@pytest.mark.requirement("R082")
@pytest.mark.parametrize(
    ("roles", "reason"),
    [
        ({}, "who may call opened"),
        ({"opened": ()}, "who may call opened"),
        ({"opened": {"keeper"}, "closed": {"keeper"}}, "names no route: closed"),
    ],
)
def test_a_route_and_its_entry_in_the_table_of_permissions_are_served_together_or_not_at_all(
    settings, roles, reason
):
    router = APIRouter(dependencies=[Depends(Permitted(over_all(roles)))])

    @router.get("/open")
    async def opened() -> dict[str, str]:
        return {}

    with pytest.raises(RouteWithoutRoles, match=reason):
        create_app("open", [router], settings)


@pytest.mark.parametrize(
    ("first", "second", "hidden"),
    [("/boxes/{box}", "/boxes/open", True), ("/boxes/open", "/boxes/{box}", False)],
)
def test_a_route_that_an_earlier_one_hides_cannot_be_served(settings, first, second, hidden):
    router = APIRouter(
        dependencies=[Depends(Permitted(over_all({key: {"keeper"} for key in ("one", "two", "three")})))]
    )

    @router.get(first)
    async def one() -> dict[str, str]:
        return {}

    @router.post(second)
    async def two() -> dict[str, str]:
        return {}

    @router.get(second)
    async def three() -> dict[str, str]:
        return {}

    if hidden:
        with pytest.raises(RouteHidden, match=second):
            create_app("boxes", [router], settings)
    else:
        create_app("boxes", [router], settings)


@pytest.mark.requirement("R091")
async def test_a_command_has_its_reason_its_privilege_and_its_effective_time(client):
    said = (await client.post("/boxes", json={"label": "x"}, headers=KEYED)).json()
    assert (said["reason"], said["privilege"]) == (None, "normal")
    body = {"label": "x", "reason": "他要求的", "effective_at": "2026-01-05T09:30:00+08:00"}
    said = (await client.post("/boxes", json=body, headers=KEYED)).json()
    assert (said["reason"], said["effective_at"]) == ("他要求的", "2026-01-05T01:30:00+00:00")
    for wrong in (
        {"reason": ""},
        {"reason": " "},
        {"reason": "\u200b\u3164"},
        {"reason": "a\x00b"},
        {"reason": "a\nb"},
        {"reason": "x" * 501},
        {"reason": 5},
        {"effective_at": "2026-01-05T09:30:00"},
        {"effective_at": "yesterday"},
        {"effective_at": "0001-01-01T00:00:00+14:00"},
        {"effective_at": "0001-01-02T23:59:59Z"},
        {"effective_at": 1767600000},
        {"effective_at": "1767600000"},
        {"privilege": "high"},
        {"actor": "somebody"},
    ):
        answer = await client.post("/boxes", json={"label": "x"} | wrong, headers=KEYED)
        is_problem(answer, 422, "request-invalid")
    ahead = await client.post("/boxes", json=body | {"effective_at": "2999-01-01T00:00:00Z"}, headers=KEYED)
    is_problem(ahead, 422, "effective-time-ahead")


@pytest.mark.requirement("R091")
async def test_the_table_of_permissions_marks_high_privilege_and_a_body_of_bytes_has_its_reason_in_the_query(
    settings, token
):
    both = ("typed", "sent")
    permitted = Permitted(over_all({key: {"administrator"} for key in both}, both), high={"typed"})
    router = APIRouter(dependencies=[Depends(permitted)])

    @router.post("/typed")
    async def typed(context: Commanding, body: ExplainedBody) -> list[str | None]:
        return [context.reason, context.privilege]

    @router.post("/sent")
    async def sent(context: Commanding, reason: Reason | None = None) -> list[str | None]:
        return [context.reason, context.privilege]

    app = create_app("kinds", [router], settings)
    headers = KEYED | {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://x", headers=headers
    ) as web:
        assert (await web.post("/typed", json={"reason": "so"})).json() == ["so", "high"]
        is_problem(await web.post("/typed", json={}), 422, "request-invalid")
        assert (await web.post("/sent", params={"reason": "so"})).json() == ["so", "normal"]
        is_problem(await web.post("/sent", params={"reason": " "}), 422, "request-invalid")


@pytest.mark.requirement("R091")
@pytest.mark.parametrize(
    ("high", "why"),
    [
        ((), "takes no reason"),
        ({"with_body"}, "may give no reason"),
        ({"question"}, "no command"),
        ({"nowhere"}, "names no route: nowhere"),
    ],
)
def test_a_command_without_a_reason_is_not_served(settings, high, why):
    names = ("with_body", "question", *(() if high else ("bare",)))
    router = APIRouter(
        dependencies=[
            Depends(
                Permitted(over_all({name: {"keeper"} for name in names}, ("with_body", "bare")), high=high)
            )
        ]
    )

    @router.post("/with-body")
    async def with_body(context: Commanding, body: CommandBody) -> None: ...

    @router.get("/question")
    async def question() -> None: ...

    if not high:

        @router.post("/bare")
        async def bare(context: Commanding) -> None: ...

    with pytest.raises((CommandWithoutReason, RouteWithoutRoles), match=why):
        create_app("open", [router], settings)


@pytest.mark.parametrize(
    ("body", "undated", "why"),
    [
        (CommandBody, (), r"done \(/done\) neither takes an effective time nor says why not"),
        (ExplainedBody, (), "neither takes an effective time"),
        (DatedBody, ("done",), "takes one or is no command"),
        (DatedExplainedBody, ("done",), "takes one or is no command"),
        (CommandBody, ("done", "question"), "question .* takes one or is no command"),
    ],
)
def test_a_command_takes_an_effective_time_or_says_why_not_or_is_not_served(settings, body, undated, why):
    def served(undated):
        table = over_all({"done": {"keeper"}, "question": {"keeper"}}, undated)
        router = APIRouter(dependencies=[Depends(Permitted(table))])

        @router.post("/done")
        async def done(context: Commanding, stated: body) -> None: ...

        @router.get("/question")
        async def question() -> None: ...

        return create_app("open", [router], settings)

    with pytest.raises(CommandUndated, match=why):
        served(undated)
    served(() if issubclass(body, DatedBody) else ("done",))


async def test_a_command_may_have_to_say_both_why_and_from_when(settings, token):
    router = APIRouter(dependencies=[Depends(Permitted(over_all({"done": {"administrator"}})))])

    @router.post("/done")
    async def done(context: Commanding, body: DatedExplainedBody) -> list[str | None]:
        return [context.reason, context.metadata().effective_at.isoformat()]

    headers = KEYED | {"Authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(create_app("kinds", [router], settings))
    async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as web:
        said = {"reason": "so", "effective_at": "2026-01-05T09:30:00+08:00"}
        assert (await web.post("/done", json=said)).json() == ["so", "2026-01-05T01:30:00+00:00"]
        is_problem(
            await web.post("/done", json={"effective_at": said["effective_at"]}), 422, "request-invalid"
        )


@pytest.mark.parametrize("query", ["limit=1&limit=2", "limit=1&after=x&limit=1", "limit=1&lim%69t=2"])
async def test_a_parameter_that_is_given_twice_is_refused_unless_it_is_a_list(client, query):
    refused = is_problem(await client.get(f"/boxes?{query}"), 422, "request-invalid")
    assert "limit" in str(refused)
    several = (await client.get("/boxes?number=1&number=4")).json()["items"]
    assert [box["number"] for box in several] == [1, 4]


async def test_a_decisive_header_that_comes_twice_is_refused(client):
    for name in ("Authorization", "Idempotency-Key", "If-Match", "Content-Type"):
        headers = [(name, "Bearer x"), (name, "Bearer y")]
        is_problem(await client.request("GET", "/boxes", headers=headers), 400, "request-malformed")


async def test_every_error_is_a_problem_with_a_code(client):
    is_problem(await client.get("/nowhere"), 404, "route-unknown")
    is_problem(await client.get("/boxes/99"), 404, "box-unknown")
    not_allowed = await client.delete("/boxes")
    is_problem(not_allowed, 405, "method-not-allowed")
    assert not_allowed.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    is_problem(await client.request("TRACE", "/boxes/1"), 405, "method-not-allowed")
    is_problem(await client.get("/boxes/1/secret"), 403, "forbidden")
    away = await client.get("/boxes/1/away")
    is_problem(away, 503, "unavailable")
    assert int(away.headers["Retry-After"]) > 0
    invalid = is_problem(await client.get("/boxes/x"), 422, "request-invalid")
    assert invalid["errors"][0] | {"message": ""} == {
        "part": "path",
        "place": "number",
        "kind": "int_parsing",
        "message": "",
    }


async def test_an_unexpected_error_gives_500_and_its_values_are_in_no_body_and_no_log(client, capsys):
    problem = is_problem(await client.get("/boxes/1/broken"), 500, "internal-error")
    assert "Zhang" not in str(problem)


async def test_every_response_forbids_caching_and_guessing_of_its_media_type(client):
    for path in ("/boxes", "/boxes/99", "/nowhere", "/boxes/1/broken", "/health/live"):
        headers = (await client.get(path)).headers
        assert (headers["Cache-Control"], headers["X-Content-Type-Options"]) == ("no-store", "nosniff")


async def test_titles_come_in_the_caller_s_language(client):
    for accepted, title, tongue in [
        ("zh-CN,zh;q=0.9,en;q=0.8", "没有该箱子", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.1", "There is no such box", "en"),
        ("fr", "There is no such box", "en"),
        ("zh;q=0", "There is no such box", "en"),
    ]:
        answer = await client.get("/boxes/99", headers={"Accept-Language": accepted})
        assert (answer.json()["title"], answer.headers["Content-Language"]) == (title, tongue)


def test_a_language_header_of_any_kind_is_read():
    assert language(None) == "en"
    assert language("zh" * 5000) == "en"
    assert language("*;q=0.5, zh;q=0.6") == "zh"
    assert language(";;,,q=") == "en"


async def test_a_command_needs_its_key_and_has_actor_address_and_trace(client):
    body = {"label": "x"}
    is_problem(await client.post("/boxes", json=body), 400, "idempotency-key-missing")
    is_problem(
        await client.post("/boxes", json=body, headers={"Idempotency-Key": ""}), 422, "request-invalid"
    )
    is_problem(
        await client.post("/boxes", json=body, headers={"Idempotency-Key": "k" * 101}), 422, "request-invalid"
    )
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = await client.post("/boxes", json=body, headers=KEYED | {"traceparent": parent})
    assert answer.status_code == 201
    assert answer.headers["Consistency-Token"] == "boxes-7"
    said = answer.json()
    assert (said["actor"], said["post"], said["key"], said["address"]) == (
        "teller-7",
        "P1",
        "8:teller-7:k1",
        "10.1.2.3",
    )
    assert said["trace"].split("-")[1] == parent.split("-")[1]
    assert said["trace"].split("-")[2] != parent.split("-")[2]


async def test_an_edit_names_the_version_it_was_decided_on(client):
    read = await client.get("/boxes/3")
    edit = {"json": {"label": "y"}}
    is_problem(await client.put("/boxes/3/label", **edit, headers=KEYED), 428, "if-match-missing")
    for wrong in ('W/"1"', "*", '"x"', '"0001"', '"2"', '""'):
        answer = await client.put("/boxes/3/label", **edit, headers=KEYED | {"If-Match": wrong})
        is_problem(answer, 412, "version-mismatch")
    for wrong in ("1", '"1', "", '"a" "b"', '"' + "1" * 50 + '"'):
        answer = await client.put("/boxes/3/label", **edit, headers=KEYED | {"If-Match": wrong})
        is_problem(answer, 422, "request-invalid")
    done = await client.put("/boxes/3/label", **edit, headers=KEYED | {"If-Match": read.headers["ETag"]})
    assert done.status_code == 200
    again = await client.get("/boxes/3", headers={"If-None-Match": read.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.requirement("R089")
async def test_pages_go_on_where_the_last_one_ended(client):
    seen, after = [], None
    for _ in range(10):
        page = (await client.get("/boxes", params={"limit": 3} | ({"after": after} if after else {}))).json()
        seen += [box["number"] for box in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert seen == list(range(7))
    for limit in ("0", "201", "x", "9" * 40, "9" * 5000):
        is_problem(await client.get("/boxes", params={"limit": limit}), 422, "request-invalid")
    for wrong in ("abc", "WyJhIl0", "W10", "WzFlOTld", "WzEyMzQ1Njc4OTAxMjM0NTY3ODkwMTJd"):
        is_problem(await client.get("/boxes", params={"after": wrong}), 400, "cursor-invalid")
    for wrong in ("", "a b", "é", "a" * 2001):
        is_problem(await client.get("/boxes", params={"after": wrong}), 422, "request-invalid")


async def test_a_query_that_asks_for_its_own_write_waits_or_says_that_the_view_is_behind(client, views):
    views.position = 7
    assert (await client.get("/boxes", params={"at_least": "boxes-7"})).status_code == 200
    views.stored = 8
    behind = await client.get("/boxes", params={"at_least": "boxes-8"})
    is_problem(behind, 503, "view-behind")
    assert int(behind.headers["Retry-After"]) > 0
    is_problem(await client.get("/boxes", params={"at_least": "jars-1"}), 404, "context-unknown")
    asked = list(views.asked)
    is_problem(await client.get("/boxes", params={"at_least": "boxes-9"}), 400, "position-unknown")
    assert views.asked == [*asked, 0.0], "nobody waits for a position that the store does not have"
    for wrong in ("7", "boxes", "boxes-", "boxes--1", "boxes-" + "9" * 19, "-7"):
        is_problem(await client.get("/boxes", params={"at_least": wrong}), 422, "request-invalid")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 422, "request-invalid"),
        (b"{", 422, "request-invalid"),
        (b"\xff\xfe", 400, "request-malformed"),
        (b'{"label": "\\ud800"}', 422, "request-invalid"),
        (b'{"label": "x", "more": {"a": "\\udfff"}}', 422, "request-invalid"),
        (b'{"label": "x", "more": {"\\ud83dx": 1}}', 422, "request-invalid"),
        (b'{"label": "a\\u0000b"}', 422, "request-invalid"),
        (b'{"label": "x", "more": {"a": 9223372036854775808}}', 422, "request-invalid"),
        (b'{"label": "x", "more": {"a": -' + b"9" * 5000 + b"}}", 422, "request-invalid"),
        (b'{"label": "x", "more": {"a": NaN}}', 422, "request-invalid"),
        (b'{"label": "x", "more": ' + b'{"a":' * 70 + b"1" + b"}" * 71, 422, "request-invalid"),
        (b"[" * 200_000, 422, "request-invalid"),
        (b'{"label": "x", "colour": 1}', 422, "request-invalid"),
        (b'{"label": "x", "more": {"a": 9223372036854775807, "b": "\\ud83d\\ude00"}}', 201, None),
    ],
)
async def test_a_body_that_no_store_could_hold_is_refused_before_any_route(client, body, status, code):
    answer = await client.post("/boxes", content=body, headers=KEYED | {"Content-Type": "application/json"})
    if code is None:
        assert answer.status_code == status, answer.text
    else:
        is_problem(answer, status, code)


async def test_null_bytes_stop_at_the_edge(client):
    is_problem(await client.get("/boxes/%00"), 400, "request-malformed")
    is_problem(await client.get("/boxes?after=%00"), 400, "request-malformed")
    assert (await client.get("/boxes/%ff")).status_code == 422
    assert (await client.get("/boxes?after=%ff%fe")).status_code == 422


async def test_more_bytes_than_a_route_takes_are_not_read(client):
    too_many = b"x" * (BODY_BYTES_MAX + 1)
    is_problem(await client.post("/boxes/2/bytes", content=too_many), 413, "body-oversized")

    async def endless():
        for _ in range(100):
            yield b"x" * 100_000
        raise AssertionError("all of it was read")

    is_problem(await client.post("/boxes/2/bytes", content=endless()), 413, "body-oversized")
    is_problem(
        await client.post("/boxes", content=endless(), headers=KEYED | {"Content-Type": "application/json"}),
        413,
        "body-oversized",
    )
    assert (await client.post("/boxes/1/bytes", content=too_many)).json() == {"bytes": len(too_many)}


async def test_the_bytes_of_all_bodies_at_once_are_bounded_and_a_stated_length_reserves_none(app, token):
    edge = Edge(app, verifier=app.state.verifier, clock=app.state.clock, bodies_bytes_max=1_000)
    headers = {"Authorization": f"Bearer {token}"}
    going_on = asyncio.Event()

    async def slow(length):
        yield b"x" * length
        await going_on.wait()

    transport = httpx.ASGITransport(edge)
    async with httpx.AsyncClient(transport=transport, base_url="http://boxes", headers=headers) as client:
        only_said = asyncio.create_task(
            client.post("/boxes/2/bytes", content=slow(1), headers={"Content-Length": "900"})
        )
        held = asyncio.create_task(client.post("/boxes/2/bytes", content=slow(600)))
        await asyncio.sleep(0.05)
        is_problem(await client.post("/boxes/2/bytes", content=b"x" * 600), 503, "overloaded")
        is_problem(await client.post("/boxes/2/bytes", content=pieces(b"x" * 300, 2)), 503, "overloaded")
        assert (await client.post("/boxes/2/bytes", content=b"x" * 300)).json() == {"bytes": 300}
        assert (await client.get("/boxes/2")).status_code == 200
        going_on.set()
        assert (await held).json() == {"bytes": 600}
        await only_said
        assert (await client.post("/boxes/2/bytes", content=b"x" * 1_000)).json() == {"bytes": 1_000}


async def pieces(piece, times):
    for _ in range(times):
        yield piece


async def test_a_body_that_does_not_come_does_not_hold_a_request_for_ever(app, token, views):
    slow = Edge(app, verifier=app.state.verifier, clock=app.state.clock, body_seconds=0.05)
    headers = {"Authorization": f"Bearer {token}"}

    async def stalling():
        yield b"{"
        await asyncio.sleep(30)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(slow), base_url="http://boxes", headers=headers
    ) as client:
        for path, kind in (("/boxes", "application/json"), ("/boxes/2/bytes", "application/octet-stream")):
            answer = await asyncio.wait_for(
                client.post(path, content=stalling(), headers=KEYED | {"Content-Type": kind}), 5
            )
            is_problem(answer, 408, "body-slow")


async def test_a_request_that_does_not_end_is_answered(app, token):
    async def endless(scope, receive, send):
        await asyncio.sleep(60)

    late = Edge(
        endless,
        verifier=app.state.verifier,
        clock=app.state.clock,
        unavailable=UNAVAILABLE,
        request_seconds=0.05,
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(late), base_url="http://boxes") as client:
        answer = await asyncio.wait_for(client.get("/boxes", headers={"Authorization": f"Bearer {token}"}), 5)
    is_problem(answer, 503, "unavailable")


async def test_more_requests_than_the_process_takes_are_refused(app, token):
    narrow = Edge(app, verifier=app.state.verifier, clock=app.state.clock, requests_max=0)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(narrow), base_url="http://boxes") as client:
        answer = await client.get("/boxes", headers={"Authorization": f"Bearer {token}"})
    is_problem(answer, 503, "overloaded")
    assert int(answer.headers["Retry-After"]) > 0


async def test_health_says_why_not_and_metrics_are_refreshed_when_asked(app, anybody):
    assert (await anybody.get("/health/live")).status_code == 200
    assert (await anybody.get("/health/ready")).json() == {"status": "ready"}
    app.state.readiness.append(lambda: ["boxes-views: MongoDB does not answer"])
    problem = is_problem(await anybody.get("/health/ready"), 503, "not-ready")
    assert problem["reasons"] == ["boxes-views: MongoDB does not answer"]

    from chassis.observability import metrics

    async def measure() -> None:
        metrics.LAG_EVENTS.labels("boxes-views", "boxes").set(42)

    async def broken() -> None:
        raise ConnectionError

    app.state.measures += [measure, broken]
    shown = await anybody.get("/metrics")
    assert shown.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert 'crm_lag_events{context="boxes",group="boxes-views"} 42.0' in shown.text
    assert 'crm_http_requests_total{method="GET",route="/health/live",status="200"}' in shown.text


async def test_the_document_names_every_answer_and_asks_for_a_token_everywhere(app, anybody):
    document = (await anybody.get("/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert len(operations) == 8
    for operation in operations:
        assert operation["security"] == [{"token": []}]
        assert {"400", "401", "403", "422", "500", "503", "default"} <= set(operation["responses"])
        for status, answer in operation["responses"].items():
            if status == "default" or int(status) >= 400:
                assert list(answer["content"]) == ["application/problem+json"]
                assert answer["content"]["application/problem+json"]["schema"] == {
                    "$ref": "#/components/schemas/Problem"
                }
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert "HTTPValidationError" not in document["components"]["schemas"]
    edit = document["paths"]["/boxes/{number}/label"]["put"]
    assert {each["name"] for each in edit["parameters"] if each["required"]} == {
        "number",
        "If-Match",
        "Idempotency-Key",
    }
    assert edit["responses"]["412"]["description"].startswith("`version-mismatch`: The subject")
    assert document["paths"]["/boxes/{number}"]["get"]["responses"]["404"]["description"].startswith(
        "`box-unknown`"
    )
    assert document["components"]["schemas"]["Box"]["properties"]["label"]["pattern"] == r"^[^\u0000]*$"


@pytest.mark.requirement("R087")
async def test_log_line_and_span_of_a_request_name_its_route_and_no_value(settings, views, token):
    lines, exporter = io.StringIO(), InMemorySpanExporter()
    root, before = logging.getLogger(), (telemetry._Tracing.tracer, telemetry._Tracing.recording)
    handlers = list(root.handlers)
    telemetry.configure_logging("boxes", stream=lines)
    telemetry.configure_tracing("boxes", exporter=exporter)
    try:
        app = create_app("boxes", [boxes_router(views)], settings)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://boxes") as client:
            headers = {"Authorization": f"Bearer {token}"}
            await client.get("/boxes/3", params={"name": "ZhangSan"}, headers=headers)
            await client.get("/ZhangSan", headers=headers)
            await client.get("/boxes/3/broken", headers=headers)
    finally:
        telemetry._Tracing.tracer, telemetry._Tracing.recording = before
        root.handlers[:] = handlers
        structlog.reset_defaults()
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    requests = [line for line in told if line["event"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in requests] == [
        ("GET", "/boxes/{number}", 422),
        ("GET", "unmatched", 404),
        ("GET", "/boxes/{number}/broken", 500),
    ]
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == [
        "GET /boxes/{number}",
        "GET unmatched",
        "GET /boxes/{number}/broken",
    ]
    assert [f"{span.context.trace_id:032x}" for span in spans] == [line["trace_id"] for line in requests]
    [failed] = [line for line in told if line["level"] == "error"]
    assert (failed["error"], failed["where"][-1].split()[-1]) == ("RuntimeError", "broken")
    everything = lines.getvalue() + "".join(span.to_json() for span in spans)
    assert "Zhang" not in everything
    assert "teller-7" not in everything

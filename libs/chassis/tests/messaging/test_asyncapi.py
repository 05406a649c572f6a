"""The AsyncAPI document says what is really on the wire, refers to nothing that is not in it, and is served."""

import json
from datetime import UTC, datetime
from uuid import UUID

import httpx
import pytest
from chassis.messaging.asyncapi import Taken, add_asyncapi, described, document
from contracts.envelope import WATERMARK, Envelope
from contracts.registry import BY_CONTEXT
from contracts.topics import CONSUMERS, EVENTS, TOPICS
from fastapi import FastAPI
from faststream.specification.asyncapi.v3_0_0.schema import ApplicationSchema

AT = datetime(2026, 1, 5, tzinfo=UTC)


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def resolved(root, reference):
    assert reference.startswith("#/")
    for step in reference.removeprefix("#/").split("/"):
        root = root[step]
    return root


def test_it_is_an_asyncapi_document():
    ApplicationSchema.model_validate(document())
    assert json.loads(json.dumps(document())) == document()


def test_every_reference_leads_somewhere():
    found = list(references(document()))
    assert found
    for reference in found:
        assert resolved(document(), reference)


def test_every_topic_event_and_reader_is_there():
    shown = document()
    assert set(shown["channels"]) == {topic.name for topic in TOPICS}
    for context, topic in EVENTS.items():
        names = {f"{event.TYPE}.v{event.VERSION}" for event in BY_CONTEXT[context]}
        assert set(shown["channels"][topic.name]["messages"]) == names | {WATERMARK}
    readers = {name.partition(".reads.")[0] for name in shown["operations"] if ".reads." in name}
    assert readers == {group.name for group in CONSUMERS}


def test_the_headers_are_those_that_are_written():
    nobody = UUID(int=1)
    envelope = Envelope(
        nobody,
        "posting.booked",
        1,
        "ingest",
        nobody,
        1,
        1,
        AT,
        AT,
        "posting-booked",
        nobody,
        nobody,
        "t",
        "s",
    )
    written = {name for name, _ in envelope.headers()}
    told = document()["components"]["messages"]["posting.booked.v1"]["headers"]
    assert set(told["properties"]) == written
    assert written - set(told["required"]) == {"traceparent", "tracestate"}


def test_personal_fields_are_marked():
    for context in BY_CONTEXT:
        for event in BY_CONTEXT[context]:
            message = document()["components"]["messages"][f"{event.TYPE}.v{event.VERSION}"]
            payload = resolved(document(), message["payload"]["$ref"])
            marked = {name for name, field in payload["properties"].items() if field.get("x-personal")}
            assert marked == event.PERSONAL


def test_records_of_others_get_the_schema_they_are_given():
    topic = next(topic for topic in TOPICS if topic not in EVENTS.values())
    shown = described([Taken(topic, {"type": "object", "title": "theirs"})])
    (message,) = shown["channels"][topic.name]["messages"].values()
    payload = resolved(shown, message["$ref"])["payload"]
    assert resolved(shown, payload["$ref"])["title"] == "theirs"


def test_definitions_of_a_schema_stand_in_the_document():
    many = {"type": "array", "items": {"$ref": "#/$defs/Line"}}
    schema = {"$id": "urn:x", "$defs": {"Line": {"type": "string"}, "Many": many}, "$ref": "#/$defs/Many"}
    topic = next(topic for topic in TOPICS if topic not in EVENTS.values())
    shown = described([Taken(topic, schema)])
    ApplicationSchema.model_validate(shown)
    (message,) = shown["channels"][topic.name]["messages"].values()
    payload = resolved(shown, resolved(shown, message["$ref"])["payload"]["$ref"])
    lines = resolved(shown, payload["$ref"])
    assert resolved(shown, lines["items"]["$ref"]) == {"type": "string"}
    assert not [reference for reference in references(shown) if "$defs" in reference]


@pytest.fixture
async def client():
    app = FastAPI()
    add_asyncapi(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://crm") as client:
        yield client


async def test_it_is_served_as_asked(client):
    assert (await client.get("/asyncapi.json")).json() == document()
    assert (await client.get("/asyncapi")).json() == document()
    page = await client.get("/asyncapi", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert all(topic.name in page.text for topic in TOPICS)
    assert "posting.booked.v1" in page.text
    assert "http://" not in page.text.replace("http://crm", "")
    assert "https://" not in page.text, "the page loads nothing from elsewhere"

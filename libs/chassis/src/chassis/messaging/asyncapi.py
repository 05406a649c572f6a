"""The AsyncAPI 3.0 document of all topics and events, made from `contracts`, and its two addresses.

FastStream can make one from running subscribers, but it knows neither our headers nor events that are only
published, and its page loads scripts from other hosts. The document is therefore made here, and
FastStream's models check it in a test.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from typing import Any, Final, NamedTuple

from contracts.envelope import WATERMARK
from contracts.examples import examples
from contracts.registry import BY_CONTEXT, PublicEvent
from contracts.topics import CONSUMERS, EVENTS, TOPICS, ConsumerGroup, Topic
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

VERSION: Final = "3.0.0"
KAFKA_BINDING: Final = "0.5.0"
DAY_MILLISECONDS: Final = 24 * 60 * 60 * 1000

BROKERS: Final = "localhost:9092"
_DEFINITIONS: Final = "#/$defs/"
_SCHEMAS: Final = "#/components/schemas/"
_OF_THE_ROOT: Final = frozenset({"$defs", "$schema", "$id", "discriminator"})

Json = dict[str, Any]


class Taken(NamedTuple):
    """Records of others that a service takes: the JSON schemas of their bodies and headers, and examples of
    bodies."""

    topic: Topic
    payload: Json
    headers: Json | None = None
    examples: Sequence[Json] = ()


@lru_cache(1)
def document() -> Json:
    """The document; `described` adds the schemas of topics whose records are not events of ours."""
    return described(())


def described(taken: Sequence[Taken], *, brokers: str = BROKERS, protocol: str = "kafka") -> Json:
    """Returns the document, with the records of others that services take.

    `brokers` are the bootstrap servers as clients name them: host and port, separated by commas.
    """
    schemas: dict[str, Json] = {}
    messages = {WATERMARK: _watermark()}
    _name_payload(messages[WATERMARK], schemas)
    channels: dict[str, Json] = {}
    operations: dict[str, Json] = {}
    for topic in TOPICS:
        channels[topic.name] = _channel(topic)
    for context, topic in EVENTS.items():
        names = [WATERMARK]
        for event in BY_CONTEXT[context]:
            name = f"{event.TYPE}.v{event.VERSION}"
            messages[name] = _message(context, event)
            _name_payload(messages[name], schemas)
            names.append(name)
        _holds(channels, topic, sorted(names))
        operations[f"publish.{topic.name}"] = _operation("send", topic, sorted(names))
    for of_others in taken:
        key = f"{of_others.topic.name}.record"
        messages[key] = {
            "name": key,
            "title": key,
            "contentType": "application/json",
            "payload": of_others.payload,
        }
        _name_payload(messages[key], schemas)
        if of_others.headers is not None:
            messages[key]["headers"] = of_others.headers
        if of_others.examples:
            messages[key]["examples"] = [{"payload": body} for body in of_others.examples]
        _holds(channels, of_others.topic, [key])
    for group in CONSUMERS:
        operations.update(_consuming(group, channels))
    return {
        "asyncapi": VERSION,
        "info": {
            "title": "CRM events",
            "version": "1",
            "description": "What the contexts publish and who reads it. Records are CloudEvents 1.0 in Kafka's binary"
            " mode; the key is the subject, so the records of a subject are in order. Every record may come twice.",
        },
        "defaultContentType": "application/json",
        "servers": {
            f"broker{number}": {
                "host": host.strip(),
                "pathname": "",
                "protocol": protocol,
                "description": "a bootstrap server",
            }
            for number, host in enumerate(brokers.split(","), start=1)
        },
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _name_payload(message: Json, schemas: dict[str, Json]) -> None:
    """Puts the schema of a message's body among the document's schemas, under a name from which a generator makes a
    class: `PostingBookedV1` of `posting.booked.v1`."""
    name = "".join(part[0].upper() + part[1:] for part in re.split(r"[^A-Za-z0-9]+", message["name"]))
    schemas[name] = _hoisted(name, message["payload"], schemas)
    message["payload"] = {"$ref": f"{_SCHEMAS}{name}"}


def _hoisted(name: str, schema: Json, schemas: dict[str, Json]) -> Json:
    """A schema whose definitions stand in the document's `components`, because a reference starts at its
    root."""
    own = {each: f"{name}{each}" for each in schema.get("$defs", ())}

    def moved(part: Any) -> Any:
        if isinstance(part, list):
            return [moved(each) for each in part]
        if not isinstance(part, dict):
            return part
        return {
            key: f"{_SCHEMAS}{own[each.removeprefix(_DEFINITIONS)]}"
            if key == "$ref" and isinstance(each, str) and each.startswith(_DEFINITIONS)
            else moved(each)
            for key, each in part.items()
            # AsyncAPI's discriminator differs from OpenAPI's.
            if not (key == "discriminator" and isinstance(each, dict) and "propertyName" in each)
        }

    for each, long in own.items():
        schemas[long] = moved(schema["$defs"][each])
    return {key: moved(each) for key, each in schema.items() if key not in _OF_THE_ROOT} | (
        moved({"$ref": schema["$ref"]}) if "$ref" in schema else {}
    )


def _channel(topic: Topic) -> Json:
    kept_milliseconds = -1 if topic.kept_days is None else topic.kept_days * DAY_MILLISECONDS
    return {
        "address": topic.name,
        "description": f"{topic.description}. Key: {topic.key}.",
        "messages": {},
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "topicConfiguration": {"retention.ms": kept_milliseconds, "cleanup.policy": ["delete"]},
                "bindingVersion": KAFKA_BINDING,
            }
        },
    }


def _holds(channels: dict[str, Json], topic: Topic, names: Sequence[str]) -> None:
    channels[topic.name]["messages"] = {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _operation(action: str, topic: Topic, names: Sequence[str]) -> Json:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/{name}"} for name in names],
    }


def _consuming(group: ConsumerGroup, channels: Mapping[str, Json]) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for topic in TOPICS:
        if topic.name in group.topics:
            operation = _operation("receive", topic, list(channels[topic.name]["messages"]))
            operation["bindings"] = {
                "kafka": {
                    "groupId": {"type": "string", "enum": [group.name]},
                    "bindingVersion": KAFKA_BINDING,
                }
            }
            found[f"{group.name}.reads.{topic.name}"] = operation
    return found


def _message(context: str, event: type[PublicEvent]) -> Json:
    payload = event.model_json_schema()
    for name in event.PERSONAL:
        payload["properties"][name]["description"] = "Sealed: a token that only the subject's key opens."
        payload["properties"][name]["x-personal"] = True
    name = f"{event.TYPE}.v{event.VERSION}"
    return {
        "name": name,
        "title": event.TYPE,
        "summary": " ".join((event.__doc__ or "").split()),
        "contentType": "application/json",
        "headers": _headers(context, event.TYPE, event.VERSION),
        "payload": payload,
        "bindings": _KEYED,
        "examples": [{"payload": body} for body in examples().get(name, ())],
    }


def _watermark() -> Json:
    return {
        "name": WATERMARK,
        "title": WATERMARK,
        "summary": "Every event of the source up to ce_position lies before this record in its partition.",
        "contentType": "application/json",
        "headers": {
            "type": "object",
            "properties": {
                "ce_specversion": {"const": "1.0"},
                "ce_id": {"type": "string"},
                "ce_source": {"enum": [f"/crm/{context}" for context in EVENTS]},
                "ce_type": {"const": WATERMARK},
                "ce_time": {"type": "string", "format": "date-time"},
                "ce_position": _COUNT,
                "ce_dataversion": {"const": "1"},
                "ce_published": _COUNT | {"description": "how many events of the source these are"},
                "content-type": {"const": "application/json"},
            },
            "required": [
                "ce_specversion",
                "ce_id",
                "ce_source",
                "ce_type",
                "ce_time",
                "ce_position",
                "ce_dataversion",
                "content-type",
            ],
        },
        "payload": {
            "type": "object",
            "properties": {
                "position": {"type": "integer", "minimum": 0},
                "published": {"type": "integer", "minimum": 0},
            },
            "required": ["position"],
        },
    }


_COUNT: Final[Json] = {"type": "string", "pattern": "^[0-9]+$"}
_KEYED: Final[Json] = {
    "kafka": {"key": {"type": "string", "format": "uuid"}, "bindingVersion": KAFKA_BINDING}
}


def _headers(context: str, name: str, version: int) -> Json:
    identity, instant = {"type": "string", "format": "uuid"}, {"type": "string", "format": "date-time"}
    needed: Json = {
        "ce_specversion": {"const": "1.0"},
        "ce_id": identity,
        "ce_source": {"const": f"/crm/{context}"},
        "ce_type": {"const": name},
        "ce_subject": identity,
        "ce_time": instant | {"description": "when it was recorded"},
        "ce_effectiveat": instant | {"description": "when it was effective in business"},
        "ce_sequence": _COUNT | {"description": "version of the subject's stream"},
        "ce_position": _COUNT | {"description": "place in the store of the context"},
        "ce_dataversion": {"const": str(version)},
        "ce_storedname": {"type": "string"},
        "ce_correlationid": identity,
        "ce_causationid": identity,
        "content-type": {"const": "application/json"},
    }
    traced: Json = {
        "traceparent": {"type": "string", "description": "W3C trace context"},
        "tracestate": {"type": "string"},
    }
    return {"type": "object", "properties": needed | traced, "required": list(needed)}


# serving


def add_asyncapi(app: FastAPI, described: Json | None = None) -> None:
    """Serves the document at /asyncapi.json, and at /asyncapi as a page where a browser asks."""
    shown = document() if described is None else described
    router = APIRouter(include_in_schema=False)

    @router.get("/asyncapi.json")
    async def as_json() -> Response:
        """The document."""
        return JSONResponse(shown)

    @router.get("/asyncapi")
    async def as_asked(request: Request) -> Response:
        """The document, or a page made from it; the page loads nothing from elsewhere."""
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(page(shown))
        return JSONResponse(shown)

    app.include_router(router)


def page(shown: Json) -> str:
    """A plain page of topics, who publishes and reads them, and every message with its fields."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        f"<title>{escape(shown['info']['title'])}</title>",
        "<style>body{font:15px/1.5 system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem}"
        "table{border-collapse:collapse;width:100%}td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:left}"
        "code{font-size:.95em}h2{margin-top:2.5rem}</style>",
        f"<h1>{escape(shown['info']['title'])}</h1><p>{escape(shown['info']['description'])}</p>",
        "<p><a href=/asyncapi.json>asyncapi.json</a></p>",
    ]
    readers = [
        (operation["channel"]["$ref"].removeprefix("#/channels/"), name.partition(".reads.")[0])
        for name, operation in shown["operations"].items()
        if operation["action"] == "receive"
    ]
    for name, channel in shown["channels"].items():
        groups = ", ".join(escape(group) for topic, group in readers if topic == name) or "nobody"
        partitions = channel["bindings"]["kafka"]["partitions"]
        parts.append(
            f"<h2><code>{escape(name)}</code></h2><p>{escape(channel['description'])} {partitions} partitions."
            f" Read by: {groups}.</p>"
        )
        parts.extend(_message_part(shown["components"], each) for each in channel["messages"])
    return "".join(parts)


def _message_part(components: Json, name: str) -> str:
    message = components["messages"][name]
    payload: Json = components["schemas"][message["payload"]["$ref"].removeprefix(_SCHEMAS)]
    fields: Json = payload.get("properties", {})
    needed = payload.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code></td><td>{escape(_shape(schema))}</td>"
        f"<td>{'required' if field in needed else ''}</td><td>{escape(schema.get('description', ''))}</td></tr>"
        for field, schema in fields.items()
    )
    table = f"<table><tr><th>field<th>type<th><th></tr>{rows}</table>" if rows else ""
    return (
        f"<h3><code>{escape(message['name'])}</code></h3><p>{escape(message.get('summary', ''))}</p>{table}"
    )


def _shape(schema: Json) -> str:
    if "anyOf" in schema:
        return " or ".join(_shape(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    kind = str(schema.get("format") or schema.get("const") or schema.get("type", "any"))
    return f"list of {_shape(schema['items'])}" if kind == "array" and "items" in schema else kind

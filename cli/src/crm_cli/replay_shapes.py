"""The shape of a replayed event: the same fields in the same order for every event of a type, whatever it has.

Who reads JSON lines guesses the type of a column from its values. A field that is sometimes absent, or a map whose keys
are values, makes such a reader give up integers. So what an event has not is null, a map is a list of entries, an
instant always has the same digits, and personal values are text or null.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from chassis.privacy.keys import ERASED, is_token
from chassis.write.catalogue import UnknownEvent
from chassis.write.events import Event, Metadata, StoredEvent, event_id, personal_fields
from contracts.envelope import headers_of
from contracts.registry import BY_CONTEXT, PublicEvent
from msgspec import inspect, structs

from crm_cli.contexts import Context

if TYPE_CHECKING:
    from chassis.relay import Published

Shape = Callable[[Any], Any]


class _Body(msgspec.Struct):
    meta: Metadata
    data: dict[str, Any]


class _WhenMeta(msgspec.Struct):
    recorded_at: datetime


class _When(msgspec.Struct):
    meta: _WhenMeta


_times: Final = msgspec.json.Decoder(_When)
_bodies: Final = msgspec.json.Decoder(_Body)
_encode: Final = msgspec.json.Encoder(uuid_format="canonical").encode
_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_NUMBERS: Final = frozenset({"ce_sequence", "ce_position", "ce_dataversion"})
_MASKED_METADATA: Final = frozenset({"client_address"})


class Shapes:
    """The lines of one context. Raises UnknownEvent for what a newer version stored."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._stored = {name: _of_event(kind) for name, kind in context.stored_names.items()}
        self._public: dict[str, dict[str, Any]] = {}
        self._personal: dict[str, frozenset[str]] = {}
        for model in BY_CONTEXT[context.name]:
            self._public[model.TYPE] = self._public.get(model.TYPE, {}) | dict.fromkeys(_fields_of(model))
            self._personal[model.TYPE] = self._personal.get(model.TYPE, frozenset()) | model.PERSONAL

    @property
    def types(self) -> list[str]:
        """The names that can be asked for: public types, and stored names."""
        return [*self._public, *self._stored]

    def stored(self, event: StoredEvent, types: frozenset[str]) -> bytes:
        """An event as it is stored, with the name and version that it is published under; empty where it is not asked for."""
        words = self._words(event)
        public = None if words is None else words.event
        if types and not _asked(event, public, types):
            return b""
        body = _bodies.decode(event.body)
        line = {
            "position": event.position,
            "stream_id": event.stream_id,
            "version": event.version,
            "event_id": event_id(event.stream_id, event.version),
            "name": event.name,
            "type": None if public is None else public.TYPE,
            "type_version": None if public is None else public.VERSION,
            "meta": _meta(body.meta),
            "data": self._stored[event.name](self._shown(event.name, body.data)),
        }
        return _encode(line) + b"\n"

    def _shown(self, name: str, data: dict[str, Any], version: int | None = None) -> dict[str, Any]:
        """Without what was stored in clear before it was known to be personal."""
        hide = self._context.hides.get(name)
        return data if hide is None else hide(data.get("v", 1) if version is None else version, data)

    def _words(self, event: StoredEvent) -> "Published | None":
        if event.name not in self._stored:
            raise UnknownEvent(
                f"position {event.position} is a {event.name}, which this version does not know"
            )
        return self._context.words(event)

    def published(self, event: StoredEvent, types: frozenset[str]) -> bytes:
        """An event as it is on Kafka: headers and body, side by side; empty where it is not published or not asked for."""
        words = self._words(event)
        if words is None or (types and not _asked(event, words.event, types)):
            return b""
        kind, body = words.event.TYPE, _bodies.decode(event.body)
        meta, version = body.meta, body.data.get("v", 1)
        headers = headers_of(
            id=str(event_id(event.stream_id, event.version)),
            type=kind,
            version=words.event.VERSION,
            context=self._context.name,
            subject=str(event.stream_id).encode(),
            sequence=event.version,
            position=event.position or 0,
            recorded_at=meta.recorded_at,
            effective_at=meta.effective_at,
            stored_name=event.name,
            correlation_id=str(meta.correlation_id),
            causation_id=str(meta.causation_id),
            traceparent=None,
            tracestate=None,
        )
        line: dict[str, Any] = {
            name: int(value) if name in _NUMBERS else value.decode()
            for name, value in headers
            if name.startswith("ce_")
        }
        line |= {"ce_time": _instant(meta.recorded_at), "ce_effectiveat": _instant(meta.effective_at)}
        line |= self._public[kind] | _hidden(
            self._shown(event.name, _decode(words.body), version), self._personal[kind]
        )
        return _encode(line) + b"\n"


def masked(value: Any) -> Any:
    """A value of an event with every sealed text in it replaced, however deep."""
    if isinstance(value, dict):
        return {name: masked(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    return ERASED if is_token(value) else value


def recorded_at(event: StoredEvent) -> datetime:
    """When an event was written down."""
    return _times.decode(event.body).meta.recorded_at


def _asked(event: StoredEvent, public: type[PublicEvent] | None, types: frozenset[str]) -> bool:
    return event.name in types or (public is not None and public.TYPE in types)


def _fields_of(model: type[PublicEvent]) -> list[str]:
    return list(model.model_json_schema()["properties"])


def _hidden(data: Mapping[str, Any], personal: frozenset[str]) -> dict[str, Any]:
    """A personal field shows whether it has a value, and no part of the value, sealed or not."""
    return {
        name: ERASED if name in personal and value is not None else masked(value)
        for name, value in data.items()
    }


def _of_event(kind: type[Event]) -> Shape:
    personal = frozenset(place for place in personal_fields(kind) if place.isidentifier())
    fields = _of_struct(kind)

    def shaped(data: dict[str, Any]) -> dict[str, Any]:
        return {"v": data.get("v", 1)} | _hidden(fields(data), personal)

    return shaped


def _of_struct(kind: type[msgspec.Struct]) -> Shape:
    fields = structs.fields(kind)
    shapes = {field.encode_name: _of(inspect.type_info(field.type)) for field in fields}

    def shaped(data: dict[str, Any]) -> dict[str, Any]:
        known = {
            name: None if (value := data.get(name)) is None else shape(value)
            for name, shape in shapes.items()
        }
        return known | {name: value for name, value in data.items() if name not in shapes and name != "v"}

    return shaped


def _of(info: inspect.Type) -> Shape:
    """The shape of a present value."""
    match info:
        case inspect.Metadata(type=inner):
            return _of(inner)
        case inspect.UnionType(types=types):
            there = [one for one in types if not isinstance(one, inspect.NoneType)]
            return _of(there[0]) if len(there) == 1 else _same
        case inspect.StructType(cls=kind):
            return _of_struct(kind)
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            shape = _of(item)
            return lambda values: [shape(value) for value in values]
        case inspect.DictType(value_type=item):
            shape = _of(item)
            return lambda values: [{"key": key, "value": shape(value)} for key, value in values.items()]
        case _:
            return _same


def _same(value: Any) -> Any:
    return value


def _meta(meta: Metadata) -> dict[str, Any]:
    shown = structs.asdict(meta)
    trace = shown.pop("trace")
    shown |= {name: None if shown[name] is None else ERASED for name in _MASKED_METADATA}
    return shown | {
        "effective_at": _instant(meta.effective_at),
        "recorded_at": _instant(meta.recorded_at),
        "traceparent": trace.get("traceparent"),
        "tracestate": trace.get("tracestate"),
    }


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

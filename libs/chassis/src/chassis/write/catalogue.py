"""Stored names and schema versions of one store's events, and the encoding and decoding of events."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from chassis.connections.transient import Transient
from chassis.privacy.keys import ERASED, DataKey, Origin, is_token, open_value, opening, seal
from chassis.privacy.personal import Marked, marked
from chassis.write.events import Event, Metadata, RecordedEvent, StoredEvent

Upcast = Callable[[dict[str, Any]], dict[str, Any]]
"""Upcasts the data of an event by one schema version. The data does not contain the key "v"."""


class UnknownEvent(Transient):
    """The store holds a name or version that this catalogue does not know: a newer process wrote it. While processes are
    replaced, an older one waits until it is its turn."""


class NewEvent(NamedTuple):
    """An event that is not stored yet."""

    stream_id: UUID
    version: int
    event: Event
    metadata: Metadata
    identity: UUID | None = None


class _Body(msgspec.Struct):
    meta: Metadata
    data: msgspec.Raw


class _MetadataOnly(msgspec.Struct):
    meta: Metadata


class _Versioned(msgspec.Struct):
    v: int = 1


class _VersionOnly(msgspec.Struct):
    data: _Versioned


class _Entry(NamedTuple):
    name: str
    version: int
    prefix: bytes
    personal: Marked
    decoder: "msgspec.json.Decoder[Event]"


class Catalogue:
    """Maps stored name and schema version to an event class, and upcasts old versions step by step.

    `entries` gives the current class of each stored name; a name is for ever, a class may be renamed
    freely. `upcasts[(name, n)]` turns data of version n into version n + 1, so the current version of a
    name is one more than the highest version that it has an upcast for.
    """

    def __init__(
        self,
        *,
        store: str,
        entries: Mapping[str, type[Event]],
        upcasts: Mapping[tuple[str, int], Upcast] = {},
    ) -> None:
        self.store = store
        self._by_class: dict[type[Event], _Entry] = {}
        self._by_name: dict[str, tuple[type[Event], _Entry]] = {}
        self._upcasts = dict(upcasts)
        self._encoder = msgspec.json.Encoder()
        self._bodies = msgspec.json.Decoder(_Body)
        self._metadata = msgspec.json.Decoder(_MetadataOnly)
        self._versions = msgspec.json.Decoder(_Versioned)
        self._version_of_body = msgspec.json.Decoder(_VersionOnly)
        self._cached_meta: tuple[Metadata | None, bytes] = (None, b"")
        for name, event_class in entries.items():
            self._enter(name, event_class)
        for name, version in self._upcasts:
            if name not in self._by_name or version >= self._by_name[name][1].version:
                raise ValueError(f"an upcast for {name} version {version}, which is not an older version")

    def _enter(self, name: str, event_class: type[Event]) -> None:
        if event_class in self._by_class:
            raise ValueError(f"{event_class.__name__} has two stored names")
        olds = sorted(version for of, version in self._upcasts if of == name)
        if olds != list(range(1, len(olds) + 1)):
            raise ValueError(f"the upcasts of {name} leave a version out: {olds}")
        version = len(olds) + 1
        entry = _Entry(
            name,
            version,
            b'{"v":%d' % version,
            marked(event_class),
            msgspec.json.Decoder(event_class),
        )
        if "v" in event_class.__struct_fields__:
            raise ValueError(f"{event_class.__name__} names a field v, which is the schema version")
        self._by_class[event_class] = entry
        self._by_name[name] = (event_class, entry)

    @property
    def names(self) -> list[str]:
        """All stored names."""
        return list(self._by_name)

    def class_of(self, name: str) -> type[Event]:
        """The current class of a stored name."""
        return self._known(name)[0]

    def name_of(self, event: Event | type[Event]) -> str:
        """The stored name of an event or its class."""
        event_class = event if isinstance(event, type) else type(event)
        return self._by_class[event_class].name

    def version_of(self, name: str) -> int:
        """The current schema version of a stored name."""
        return self._known(name)[1].version

    def origin(self, stored: StoredEvent | RecordedEvent) -> Origin:
        """Where the sealed values of an event were written."""
        return Origin(self.store, stored.stream_id, stored.version, stored.name)

    @property
    def purposes(self) -> frozenset[str]:
        """The purposes for which subjects have a key of their own."""
        return frozenset[str]().union(*(entry.personal.purposes for entry in self._by_class.values()))

    def sealed_under(self, stored: StoredEvent) -> UUID:
        """The subject under whose key the sealed values of an event are."""
        known = self._by_name.get(stored.name)
        field = None if known is None else known[0].sealed_under
        subject = None if field is None else msgspec.json.decode(stored.body)["data"].get(field)
        return stored.stream_id if subject is None else UUID(subject)

    # writing

    def encode(
        self, event: Event, metadata: Metadata, *, stream_id: UUID, version: int, key: DataKey | None
    ) -> bytes:
        """The bytes to store. Personal values are sealed; without a key (an erased subject) they are dropped."""
        entry = self._by_class[type(event)]
        if entry.personal:
            event = _sealed(event, entry, Origin(self.store, stream_id, version, entry.name), key)
        before, meta = self._cached_meta
        if before is not metadata:
            meta = self._encoder.encode(metadata)
            self._cached_meta = (metadata, meta)
        data = self._encoder.encode(event)
        comma = b"" if len(data) == 2 else b","
        return b"".join((b'{"meta":', meta, b',"data":', entry.prefix, comma, data[1:], b"}"))

    def stored(self, events: Iterable[NewEvent], keys: Mapping[UUID, DataKey]) -> list[StoredEvent]:
        """Events ready to append; `keys` as `KeyRing.keys_for` gives them for the streams of `events`."""
        by_class, encode = self._by_class, self.encode
        return [
            StoredEvent(
                new.stream_id,
                new.version,
                by_class[type(new.event)].name,
                encode(
                    new.event,
                    new.metadata,
                    stream_id=new.stream_id,
                    version=new.version,
                    key=keys.get(new.stream_id),
                ),
                new.identity,
            )
            for new in events
        ]

    # reading

    def decode(self, stored: StoredEvent) -> RecordedEvent:
        """The event with its personal values still sealed, for code that only passes them on."""
        return self._decode(stored, None, opening=False)

    def open(self, stored: StoredEvent, key: DataKey | None) -> RecordedEvent:
        """The event with its personal values in clear; "***" where there is no key (an erased subject)."""
        return self._decode(stored, key, opening=True)

    def open_all(self, stored: Sequence[StoredEvent], keys: Mapping[UUID, DataKey]) -> list[RecordedEvent]:
        """As `open`, for many."""
        return [self._decode(one, keys.get(one.stream_id), opening=True) for one in stored]

    def check(self, stored: StoredEvent) -> None:
        """Raises UnknownEvent where a newer process stored the event."""
        entry = self._known(stored.name)[1]
        if (version := self._version_of_body.decode(stored.body).data.v) > entry.version:
            raise _newer(stored, version)

    def metadata_of(self, stored: StoredEvent) -> Metadata:
        """Only the metadata; works for names that the catalogue does not know."""
        return self._metadata.decode(stored.body).meta

    def _decode(self, stored: StoredEvent, key: DataKey | None, *, opening: bool) -> RecordedEvent:
        entry = self._known(stored.name)[1]
        body = self._bodies.decode(stored.body)
        raw = bytes(body.data)
        version = entry.version if raw.startswith(entry.prefix + b",") else self._versions.decode(raw).v
        event: Event
        if version == entry.version:
            event = entry.decoder.decode(raw)
            if opening and entry.personal:
                event = _opened(event, entry, self.origin(stored), key)
        elif version > entry.version:
            raise _newer(stored, version)
        else:
            event = self._lifted(stored, raw, version, key, opening=opening)
        return RecordedEvent(stored.position, stored.stream_id, stored.version, stored.name, event, body.meta)

    def _lifted(
        self,
        stored: StoredEvent,
        raw: bytes,
        version: int,
        key: DataKey | None,
        *,
        opening: bool,
    ) -> Event:
        event_class, entry = self._known(stored.name)
        data = msgspec.json.decode(raw)
        data.pop("v", None)
        if opening:
            # The associated data has the value's place at the time of writing: open the value before upcasting.
            personal, open_token = entry.personal, partial(open_value, key, self.origin(stored))
            plain = set(event_class.__struct_fields__) - personal.texts.keys() - personal.inner.keys()
            data = {
                name: value if name in plain else _tokens_replaced(value, open_token, name)
                for name, value in data.items()
            }
        for step in range(version, entry.version):
            data = self._upcasts[entry.name, step](data)
        return msgspec.convert(data, event_class)

    def _known(self, name: str) -> tuple[type[Event], _Entry]:
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownEvent(f"no event is called {name}") from None


def _newer(stored: StoredEvent, version: int) -> UnknownEvent:
    return UnknownEvent(f"{stored.name} version {version} is newer than this code")


def _sealed(event: Event, entry: _Entry, origin: Origin, key: DataKey | None) -> Event:
    prefix = origin.prefix()

    def sealed(place: str, plain: str, purpose: str) -> str:
        sealer = None if key is None else key.of(purpose)
        return ERASED if sealer is None else seal(sealer, f"{prefix}{place}{sealer.suffix}".encode(), plain)

    return entry.personal.replaced(event, sealed)


def _opened(event: Event, entry: _Entry, origin: Origin, key: DataKey | None) -> Event:
    open_token = opening(key, origin)
    return entry.personal.replaced(event, lambda place, token, _: open_token(place, token) or "")


def _tokens_replaced(value: Any, open_token: Callable[[str, str], str | None], place: str) -> Any:
    """A value of an older version with each sealed text in it opened, however deep."""
    if isinstance(value, dict):
        return {name: _tokens_replaced(inner, open_token, f"{place}.{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [_tokens_replaced(inner, open_token, f"{place}[{at}]") for at, inner in enumerate(value)]
    return open_token(place, value) if is_token(value) or value == ERASED else value

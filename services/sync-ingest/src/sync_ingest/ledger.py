"""The pipeline's ledger over the event store of this context: bulk look-ups, sealing, and one append per batch."""

from binascii import b2a_base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from itertools import count
from os import urandom
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
from chassis.connections.postgres import Connection
from chassis.privacy.aging import AgedCache
from chassis.privacy.keys import ERASED, KEYS_CACHED_SECONDS, DataKey, KeyRing, open_bytes, seal_bytes
from chassis.privacy.personal import TRANSACTION, marked
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandKeyReused
from chassis.write.events import Event, Metadata, RecordedEvent, StoredEvent
from chassis.write.store import (
    Append,
    Appended,
    Command,
    CommandSeen,
    Fence,
    IdentityConflict,
    Recorder,
    VersionConflict,
)
from msgspec import structs
from psycopg import sql

from sync_ingest.archive.schema import STORE_SCHEMA
from sync_ingest.domain.booking import differences
from sync_ingest.domain.events import STORED_NAMES, UPCASTS, PartyDescribed, PostingBooked, PostingReversed
from sync_ingest.domain.partial_sums import ACCOUNTS_KEPT_MAX
from sync_ingest.domain.records import Posting
from sync_ingest.folding import StoredMovement
from sync_ingest.pipeline.ports import AppendConflict, Entry, StoredPosting
from sync_ingest.runs.ports import ITSELF, Acting, SubjectErased

STORE: Final = "ingest"
SCHEMA: Final = STORE_SCHEMA
DIGEST_PURPOSE: Final = "ingest content digest"
POSTING_NAMES: Final = ("posting-booked", "posting-reversed")
READ_ROWS: Final = 2_000
CATALOGUE: Final = Catalogue(store=STORE, entries=STORED_NAMES, upcasts=UPCASTS)
_CURSORS: Final = count()

_MOVEMENTS: Final = sql.SQL(
    "select e.stream_id, e.version, e.body"
    " from unnest(%b::uuid[], %b::int[]) with ordinality as w(id, after, place) cross join lateral"
    " (select stream_id, version, body from {t} as f where f.stream_id = w.id and f.version > w.after"
    " and f.name = any(%b::text[]) offset 0) as e order by w.place, e.version"
).format(t=sql.Identifier(SCHEMA, "events"))


NONCE_BYTES: Final = 12
NONCES_PER_EVENT: Final = 3
"""How many are drawn at once: as many personal fields as a posting has. More are drawn where more are needed."""
_KINDS: Final[dict[type[Event], tuple[str, bytes, tuple[tuple[str, bytes, str | None], ...]]]] = {
    event: (
        name,
        b"%d," % CATALOGUE.version_of(name),
        tuple(
            (field, f"|{name}|{field}".encode(), None if mark.purpose == TRANSACTION else mark.purpose)
            for field, mark in marked(event).marks().items()
        ),
    )
    for name, event in STORED_NAMES.items()
}
"""Of each event: its stored name, its version, and each personal field with its place and its purpose, None for
`TRANSACTION`: the key of that is at hand."""
_OF_PARTIES: Final = marked(PartyDescribed).purposes
"""For these purposes a party has keys of its own. Other subjects have one key: their postings, above all."""
if any(marked(event).inner for event in STORED_NAMES.values()):
    raise TypeError(
        "`StoreLedger.sealed` seals texts of an event, and an event has personal values further in"
    )
_encode: Final = msgspec.json.Encoder().encode


class _PlaceOf(NamedTuple):
    """What the places of all sealed values of a stream have in common, and the key they are sealed under."""

    key: DataKey | None
    stream: bytes
    of_key: bytes


_NOWHERE: Final = _PlaceOf(None, b"", b"")


class _PostingData(msgspec.Struct):
    amount_minor: int
    currency: str
    booked_on: date
    intake: UUID
    line: int
    digest: str
    kind: str | None = None
    balance_after_minor: int | None = None


class _PostingBody(msgspec.Struct):
    data: _PostingData


_posting_bodies: Final = msgspec.json.Decoder(_PostingBody)


class StoreLedger:
    """The event store as a run needs it: one connection to read, another that a writing thread has to itself."""

    def __init__(
        self,
        recorder: Recorder,
        writer: Recorder,
        keys: KeyRing,
        *,
        now: Callable[[], datetime],
        places_cached_max: int = ACCOUNTS_KEPT_MAX,
    ) -> None:
        self._recorder = recorder
        self._writer = writer
        self._keys = keys
        self._now = now
        self._acting = ITSELF
        self._trace: dict[str, str] = {}
        self._places: AgedCache[int, _PlaceOf] = AgedCache(
            places_cached_max, KEYS_CACHED_SECONDS, keys.monotonic
        )

    @contextmanager
    def fenced(self, fence: Fence) -> Iterator[None]:
        """Meanwhile what is to be stored is refused with Fenced from when another run took the source."""
        self._writer.fence = fence
        try:
            yield
        finally:
            self._writer.fence = None

    def said_by(self, acting: Acting, trace: Mapping[str, str]) -> None:
        """What is stored from now on names who had it stored, and in which trace unless its record brought its own."""
        self._acting, self._trace = acting, dict(trace)

    def postings(self, identities: Sequence[UUID]) -> dict[UUID, StoredPosting]:
        """The stored postings among `identities`."""
        found = {}
        for stored in self._recorder.read_identities(identities):
            if stored.name in POSTING_NAMES and stored.identity is not None and stored.position is not None:
                data = _posting_bodies.decode(stored.body).data
                found[stored.identity] = StoredPosting(
                    position=stored.position,
                    amount_minor=data.amount_minor,
                    currency=data.currency,
                    booked_on=data.booked_on,
                    digest=data.digest,
                    intake=data.intake,
                    line=data.line,
                    reversal=stored.name == "posting-reversed",
                    kind=data.kind,
                )
        return found

    def differences(self, postings: Mapping[UUID, Posting]) -> list[frozenset[str]]:
        """The fields in which each of these describes the stored posting of its identity differently."""
        stored = [one for one in self._recorder.read_identities(list(postings)) if one.name in POSTING_NAMES]
        keys = self._keys.keys_for({one.stream_id for one in stored}, create=False)
        found = []
        for one in stored:
            event = CATALOGUE.open(one, keys.get(one.stream_id)).event
            if one.identity is None or one.stream_id not in keys:
                continue
            if isinstance(event, (PostingBooked, PostingReversed)):
                reverses = isinstance(event, PostingReversed)
                found.append(differences(event, reverses, postings[one.identity]))
        return found

    def known(self, identities: Sequence[UUID]) -> set[UUID]:
        """The identities that are taken."""
        return self._recorder.known_identities(identities)

    def heads(self, streams: Sequence[UUID]) -> dict[UUID, int]:
        """Version of the last event of each stream that has one."""
        return self._recorder.stream_heads(streams)

    def head_position(self) -> int:
        """Position of the last event of the whole store."""
        return self._recorder.head_position()

    def digest_keys(self, subjects: Sequence[UUID], parties: Sequence[UUID] = ()) -> dict[UUID, bytes]:
        """A secret per stream, derived from its data keys and gone with any of them: none of a party that is erased in part.
        `parties` are streams of parties."""
        keys = self._keys.keys_for(subjects)
        if parties:
            keys |= self._keys.keys_for(parties, purposes=_OF_PARTIES)
        return {
            subject: key.whole.derive(DIGEST_PURPOSE)
            for subject, key in keys.items()
            if key.parts is None or None not in key.parts.values()
        }

    def append(self, sealed: Sequence[StoredEvent]) -> list[int]:
        """Stores in one transaction, over the writing connection."""
        try:
            return self._writer.append_bulk(sealed)
        except (VersionConflict, IdentityConflict) as conflict:
            raise AppendConflict(str(conflict)) from conflict

    @contextmanager
    def within(self, connection: Connection) -> Iterator[None]:
        """As `Recorder.within`."""
        with self._writer.within(connection):
            yield

    def append_for(self, command: Command | None, stream: UUID, sealed: Sequence[StoredEvent]) -> int:
        """Stores events of one stream and the command that they come of in one transaction; the position after it.

        Raises CommandKeyReused where the key is taken, AppendConflict where the stream has moved on.
        """
        expected = self.heads([stream]).get(stream, 0)
        (result,) = self._writer.append_items([Append(stream, tuple(sealed), command, expected)])
        if isinstance(result, Appended):
            return result.positions[-1] if result.positions else self.head_position()
        if isinstance(result, CommandSeen):
            raise CommandKeyReused
        raise AppendConflict(str(result)) from result

    def outcome(self, command: Command) -> tuple[RecordedEvent, ...] | None:
        """What came of the command when it was carried out; None where it was not. Raises CommandKeyReused."""
        seen = self._recorder.commands([command.key]).get(command.key)
        if seen is None:
            return None
        if seen.fingerprint != command.fingerprint:
            raise CommandKeyReused
        if not seen.event_count:
            return ()
        stored = self._recorder.read_stream(seen.stream_id, seen.version - seen.event_count, seen.event_count)
        return tuple(CATALOGUE.open(one, None) for one in stored)

    def stored_under(self, identities: Sequence[UUID]) -> dict[UUID, RecordedEvent]:
        """The events that took these identities, without what is personal in them."""
        found = self._recorder.read_identities(identities)
        return {one.identity: CATALOGUE.open(one, None) for one in found if one.identity is not None}

    def movements(self, after: Mapping[UUID, int]) -> Iterator[StoredMovement]:
        """Every posting of these accounts beyond a version, account by account in stored order, by a server's cursor."""
        connection = self._recorder.connection()
        with (
            connection.transaction(),
            connection.cursor(f"movements_{next(_CURSORS)}", binary=True) as cursor,
        ):
            cursor.itersize = READ_ROWS
            cursor.execute(_MOVEMENTS, (list(after), list(after.values()), list(POSTING_NAMES)))
            for stream_id, version, body in cursor:
                data = _posting_bodies.decode(body).data
                yield StoredMovement(
                    stream_id,
                    version,
                    data.booked_on,
                    data.amount_minor,
                    data.currency,
                    data.balance_after_minor,
                    data.intake,
                )

    def account_numbers(self, accounts: Sequence[UUID]) -> dict[UUID, str]:
        """How the source names these accounts: what the first event of each stream says."""
        keys = self._keys.keys_for(accounts, create=False)
        numbers = {}
        for account in accounts:
            for stored in self._recorder.read_stream(account, limit=1):
                event = CATALOGUE.open(stored, keys.get(account)).event
                number = getattr(event, "account", None)
                if isinstance(number, str):
                    numbers[account] = number
        return numbers

    def sealed(self, entries: Sequence[Entry]) -> list[StoredEvent]:
        """The entries as they will be stored, personal fields sealed under their stream's key.

        The same bytes as `Catalogue.encode` gives, with what a batch has in common done once for all of it.
        """
        places = self._places_of(entries)
        recorded_at = self._now()
        metas: dict[tuple[datetime, int, str | None], bytes] = {}
        meta_at, meta_intake, meta_trace, meta = None, None, None, b""
        drawn = NONCE_BYTES * NONCES_PER_EVENT * len(entries)
        chance, at = urandom(drawn), 0
        stored = []
        for entry in entries:
            event, version, stream = entry.event, entry.version, entry.stream_id
            effective_at, intake, trace = entry.effective_at, entry.intake, entry.trace
            if effective_at is not meta_at or intake is not meta_intake or trace is not meta_trace:
                meta_at, meta_intake, meta_trace = effective_at, intake, trace
                of_meta = effective_at, intake.int, trace
                if (known := metas.get(of_meta)) is None:
                    encoded = _encode(self._meta(recorded_at, effective_at, intake, trace))
                    known = metas[of_meta] = b'{"meta":%b,"data":{"v":' % encoded
                meta = known
            name, of_version, personal = _KINDS[type(event)]
            key, of_stream, of_key = places[stream.int] if personal else _NOWHERE
            sealed, of_event = {}, of_stream + b"%d" % version
            for field, of_field, purpose in personal:
                plain = getattr(event, field)
                if plain is None:
                    continue
                if purpose is None or key is None:
                    by, of_by = key, of_key
                else:
                    by, of_by = _for(purpose, key)
                if by is None:
                    sealed[field] = ERASED
                    continue
                if at == drawn:
                    chance, at = urandom(drawn), 0
                nonce = chance[at : at + NONCE_BYTES]
                at += NONCE_BYTES
                place = of_event + of_field + of_by
                token = nonce + by.cipher.encrypt(nonce, plain.encode(), place)
                sealed[field] = by.head + b2a_base64(token, newline=False).decode("ascii")
            data = _encode(structs.replace(event, **sealed) if sealed else event)
            stored.append(
                StoredEvent(stream, version, name, b"%b%b%b}" % (meta, of_version, data[1:]), entry.identity)
            )
        return stored

    def _places_of(self, entries: Sequence[Entry]) -> dict[int, _PlaceOf]:
        """Where values of each stream are sealed to; the ring decides every time whether the key still stands.

        By the integer of the stream: a UUID computes its hash in Python each time.
        """
        streams = {e.stream_id.int: e.stream_id for e in entries if _KINDS[type(e.event)][2]}
        parties = {e.stream_id for e in entries if type(e.event) is PartyDescribed}
        if parties:
            self._keys.keys_for(parties, purposes=_OF_PARTIES)
        keys, known = self._keys.keys_for(streams.values()), self._places
        found = {}
        for (number, stream), held in zip(streams.items(), known.get_all(streams), strict=True):
            key, place = keys.get(stream), held
            if place is None or place.key is not key:
                of_key = key.suffix.encode() if key else b""
                place = _PlaceOf(key, f"{STORE}|{stream.hex}|".encode(), of_key)
                known.put(number, place)
            found[number] = place
        return found

    def _meta(
        self, recorded_at: datetime, effective_at: datetime, intake: UUID, trace: str | None
    ) -> Metadata:
        return Metadata(
            effective_at=effective_at,
            recorded_at=recorded_at,
            actor=self._acting.actor,
            post=self._acting.post,
            on_behalf_of=self._acting.on_behalf_of,
            reason=self._acting.reason,
            privilege=self._acting.privilege,
            client_address=self._acting.client_address,
            command_id=intake,
            correlation_id=intake,
            causation_id=intake,
            trace={"traceparent": trace} if trace else self._trace,
        )


def _for(purpose: str, key: DataKey) -> tuple[DataKey | None, bytes]:
    """What seals values of a purpose, and the end of their places."""
    part = key.of(purpose)
    return part, b"" if part is None else part.suffix.encode()


class KeptVault:
    """Seals raw intakes and quarantined records under a key of their own subject."""

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    def seal_bytes(self, subject: UUID, place: str, plain: bytes) -> bytes:
        """Sealed bytes that open at this place only; raises SubjectErased where the key is gone."""
        key = self._keys.keys_for([subject]).get(subject)
        if key is None:
            raise SubjectErased(subject)
        return seal_bytes(key, place, plain)

    def open_bytes(self, subject: UUID, place: str, sealed: bytes) -> bytes:
        """What was sealed at that place; raises SubjectErased where the key is gone."""
        key = self._keys.keys_for([subject], create=False).get(subject)
        plain = open_bytes(key, place, sealed)
        if plain is None:
            raise SubjectErased(subject)
        return plain

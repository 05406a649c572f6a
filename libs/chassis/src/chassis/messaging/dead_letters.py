"""Dead letters: records that a consumer group could not process, each with the reason and its place.

A dead letter holds nothing of its record in clear. An event of ours is not copied: its topic keeps it for
ever, and the letter gives its place. A record of another topic, which is kept for days only, is sealed
whole under a key of the custody. Letters are kept for `Topic.kept_days`.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID, uuid5

import msgspec
from contracts.envelope import Header
from contracts.topics import dead_letters
from typing_extensions import override

from chassis.clock import Clock
from chassis.messaging.delivered import Delivered
from chassis.messaging.records import Record
from chassis.messaging.transport import Partition, Publisher, acknowledge, group_offsets, read_from
from chassis.privacy.keys import DataKey, KeyRing, open_bytes, seal_bytes

REASON_CHARACTERS_MAX: Final = 500
RESENT_AT_ONCE_MAX: Final = 5_000
"""Letters that are opened, put in order and published together."""
TRIES_MAX: Final = 3
_NAMESPACE: Final = UUID("5c0f0a3e-8a37-5a51-9a43-0b4c8a7c3d21")

_pack: Final = msgspec.msgpack.Encoder().encode


class _Copied(msgspec.Struct, array_like=True):
    key: bytes
    headers: list[tuple[str, bytes | None]]
    value: bytes


_copied: Final = msgspec.msgpack.Decoder(_Copied)


class Custody(Protocol):
    """Seals letters."""

    def seal(self, place: str, plain: bytes) -> bytes:
        """Sealed bytes that open at this place only. Blocks; raises what is transient where there is no key."""
        ...

    def open(self, place: str, sealed: bytes) -> bytes | None:
        """The plain bytes; None where their key is gone. Blocks."""
        ...


class KeyCustody(Custody):
    """Seals all letters of a group under one key. The key ring is opened when the first letter needs it."""

    def __init__(self, group: str, opened: Callable[[], KeyRing]) -> None:
        self._subject = uuid5(_NAMESPACE, group)
        self._opened = opened
        self._ring: KeyRing | None = None
        self._lock = Lock()

    @override
    def seal(self, place: str, plain: bytes) -> bytes:
        with self._key(create=True) as key:
            if key is None:
                raise PermissionError("the key of the dead letters was destroyed")
            return seal_bytes(key, place, plain)

    @override
    def open(self, place: str, sealed: bytes) -> bytes | None:
        with self._key(create=False) as key:
            return open_bytes(key, place, sealed)

    def close(self) -> None:
        """Lets the ring go."""
        with self._lock:
            if self._ring is not None:
                self._ring.close()
                self._ring = None

    @contextmanager
    def _key(self, *, create: bool) -> Iterator[DataKey | None]:
        with self._lock:
            if self._ring is None:
                self._ring = self._opened()
            yield self._ring.keys_for([self._subject], create=create).get(self._subject)


class DeadLetter(NamedTuple):
    """A dead letter on its topic, at `offset`. `subject` and `type` are those of an event of ours."""

    offset: int
    at: str
    reason: str
    tries: int
    origin: Partition
    origin_offset: int
    context: str | None
    subject: UUID | None
    type: str | None
    sealed: bytes

    @property
    def place(self) -> str:
        """The associated data that binds the sealed copy to its place."""
        return _place(self.origin, self.origin_offset)

    def opened(self, custody: Custody) -> Record | None:
        """Returns the copied record; None where there is no copy or its key is gone. Blocks; raises Tampered."""
        if not self.sealed:
            return None
        plain = custody.open(self.place, self.sealed)
        if plain is None:
            return None
        copied = _copied.decode(plain)
        headers = [(name, value or b"") for name, value in copied.headers]
        return Record(*self.origin, copied.key, headers, copied.value, self.origin_offset)


class DeadLetters:
    """Writes the dead letters of one group.

    Without a custody no record is copied: its topic must keep it for ever.
    """

    def __init__(
        self,
        group: str,
        publisher: Publisher,
        clock: Clock,
        *,
        topic: str | None = None,
        custody: Custody | None = None,
    ) -> None:
        self.group = group
        self.topic = topic or dead_letters(group).name
        self.written = 0
        """The number of dead letters that this process wrote."""
        self._publisher = publisher
        self._clock = clock
        self._custody = custody

    async def write(self, records: Sequence[tuple[Record, str]], event: Delivered | None = None) -> None:
        """Writes a dead letter for each record, with the reason.

        `event` is the event that was read from the one record.

        A reason holds nothing of the record. Raises PublishFailed, and what is transient where there is no
        key.
        """
        letters = [await self._letter(record, reason, event) for record, reason in records]
        await self._publisher.publish(letters)
        self.written += len(letters)

    async def write_uncopied(self, records: Sequence[tuple[Record, str]]) -> None:
        """Writes a dead letter for each record of which only the place is known. Raises PublishFailed."""
        letters = [await self._letter(record, reason, None, copied=False) for record, reason in records]
        await self._publisher.publish(letters)
        self.written += len(letters)

    async def _letter(
        self, record: Record, reason: str, event: Delivered | None, *, copied: bool = True
    ) -> Record:
        offset = -1 if record.offset is None else record.offset
        headers: list[Header] = [
            ("dl_reason", reason[:REASON_CHARACTERS_MAX].encode("utf-8", "replace")),
            ("dl_group", self.group.encode()),
            ("dl_topic", record.topic.encode()),
            ("dl_partition", b"%d" % record.partition),
            ("dl_offset", b"%d" % offset),
            ("dl_tries", b"%d" % TRIES_MAX),
            ("dl_at", self._clock.now().isoformat().encode()),
        ]
        if event is not None:
            headers += [
                ("dl_context", event.context.encode()),
                ("dl_subject", str(event.subject).encode()),
                ("dl_type", event.type.encode()),
                ("dl_sequence", b"%d" % event.sequence),
            ]
        sealed = b""
        if copied and self._custody is not None:
            plain = _pack(_Copied(record.key, list(record.headers), record.value))
            place = _place((record.topic, record.partition), offset)
            sealed = await asyncio.to_thread(self._custody.seal, place, plain)
        return Record(self.topic, 0, b"", headers, sealed)


class Resent(NamedTuple):
    """The result of a resending: records that were published again, and dead letters without a copy that
    opens."""

    sent: int
    without_copy: int


def read_letter(record: Record) -> DeadLetter | None:
    """A letter from its record; None where the record is none."""
    found = dict(record.headers)

    def text(name: str) -> str | None:
        value = found.get(name)
        return None if value is None else value.decode("utf-8", "replace")

    try:
        origin = (found["dl_topic"].decode(), int(found["dl_partition"]))
        subject = text("dl_subject")
        return DeadLetter(
            record.offset or 0,
            text("dl_at") or "",
            text("dl_reason") or "",
            int(found["dl_tries"]),
            origin,
            int(found["dl_offset"]),
            text("dl_context"),
            None if subject is None else UUID(subject),
            text("dl_type"),
            record.value,
        )
    except (KeyError, ValueError, AttributeError, TypeError):
        return None


def resending(group: str) -> str:
    """The consumer group whose offsets say up to where the dead letters of a group were sent again."""
    return f"{group}.dead-letters.resend"


async def resend(kafka: Any, group: str, publisher: Publisher, custody: Custody) -> Resent:
    """Publishes the records that a group's dead letters copy to their topics.

    Skips letters of an earlier resending.

    Each record goes to its own partition, in the order that it had there, so every subject's order holds.
    After a crash some are sent twice, which their own identity makes harmless. Raises BrokerUnavailable,
    and what is transient.
    """
    topic, remembered = dead_letters(group).name, resending(group)
    done = (await group_offsets(kafka, remembered)).get((topic, 0), 0)
    sent = without = 0
    async for page in read_from(kafka, (topic, 0), done, page=RESENT_AT_ONCE_MAX):
        letters = {}
        for record in page:
            letter = read_letter(record)
            if letter is not None:
                letters[letter.origin, letter.origin_offset] = letter
        again: list[Record] = []
        for place in sorted(letters):
            copied = await asyncio.to_thread(letters[place].opened, custody)
            if copied is None:
                without += 1
            else:
                again.append(copied._replace(offset=None))
        await publisher.publish(again)
        sent += len(again)
        await acknowledge(kafka, remembered, {(topic, 0): (page[-1].offset or 0) + 1})
    return Resent(sent, without)


def _place(origin: Partition, offset: int) -> str:
    return f"dead-letter|{origin[0]}|{origin[1]}|{offset}"

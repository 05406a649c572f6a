"""Documents of views: their port, how they guard themselves against stale writers, and sealed values in them.

Every document belongs to exactly one subject. Its `_seq` is the highest sequence of that subject that was
applied to it. In a view over several contexts, it is one sequence for each context. A write names the
`_seq` of the document that it was folded from. A write that was folded from another document than the
stored one is refused, and its writer folds again. Duplicates, stale readers and two consumers of one
partition are therefore harmless.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

import msgspec

from chassis.privacy.keys import ERASED, DataKey, Origin, open_value

Document = dict[str, Any]
DocumentId = str | UUID

ID: Final = "_id"
SEQUENCE: Final = "_seq"
GONE: Final = "_gone"
"""Marks a document that a view removed. It stays as a tombstone with its `_seq`, because a stale event would
revive it."""
_HASH_BYTES: Final = 32
_HASH_SPACE: Final = 1 << (8 * _HASH_BYTES)
_encode: Final = msgspec.json.Encoder(order="deterministic", uuid_format="hex").encode


Mark = int | dict[str, int]
"""The type of `_seq`: a sequence, or the sequence of each context by its name, in order of the names."""


class DocumentsUnavailable(ConnectionError):
    """The document database did not answer. Any part of the request may have been carried out."""


class DocumentsSlow(DocumentsUnavailable):
    """A query took longer than it was given."""


class IndexMissing(Exception):
    """A query names an index that is not there."""


class AnswerTooLarge(Exception):
    """What a query joins to a document is larger than the database allows."""


class DocumentKey(NamedTuple):
    """The key of a document of a view: the view's own name of the collection, and the id."""

    collection: str
    id: DocumentId


class Unwritable(ValueError):
    """The document cannot be stored: it is too large, or has a value without a type in the database."""

    own_words = True


class Change(NamedTuple):
    """A document to be written if its `_seq` is still `expected` (None: if there is no document yet).

    `frozen` is what `Documents.freeze` made of it, its `_id` and its `_seq`, which is `sequence`, included.
    """

    id: DocumentId
    expected: Mark | None
    sequence: Mark
    frozen: Any


@dataclass(frozen=True, slots=True)
class Written:
    """The failed parts of a write: ids whose guard did not hold, and ids that were refused for good, with the
    reason."""

    conflicts: Collection[DocumentId] = ()
    rejected: Mapping[DocumentId, str] = field(default_factory=dict)


class Documents(Protocol):
    """Collections of documents: MongoDB in production, a dictionary in the simulation."""

    def freeze(self, document: Document) -> Any:
        """The document as it is now, in the form that `write` takes; raises Unwritable."""
        ...

    async def load(self, collection: str, ids: Sequence[DocumentId]) -> dict[DocumentId, Document]:
        """Returns the documents that exist. The caller may change them. Raises DocumentsUnavailable."""
        ...

    async def write(self, collection: str, changes: Sequence[Change]) -> Written:
        """Writes each change whose guard holds, independently of the others; raises DocumentsUnavailable.

        No two changes are of one document.
        """
        ...


# sealed values


class Sealing(Protocol):
    """The parts of an event that a copy of one of its sealed values needs."""

    @property
    def sequence(self) -> int:
        """Version of the stream."""
        ...

    @property
    def stored_name(self) -> str:
        """Name under which the store holds the event."""
        ...

    @property
    def data(self) -> dict[str, Any]:
        """The body."""
        ...


class Sealed(msgspec.Struct, frozen=True):
    """A personal value in a document: the token, and the origin that opens it together with the subject's
    key."""

    token: str = msgspec.field(name="t")
    version: int = msgspec.field(name="v")
    name: str = msgspec.field(name="n")


def sealed(event: Sealing, field: str) -> Document | None:
    """The value at a place of an event (`owner`, `guests[0].name`), still sealed, for a document; None stays
    None."""
    token = event.data.get(field) if field.isidentifier() else _at(event.data, field)
    return None if token is None else {"t": token, "v": event.sequence, "n": event.stored_name}


def _at(value: Any, place: str) -> Any:
    """The value at a place; None where a part of the path is absent."""
    for step in place.replace("[", ".").replace("]", "").split("."):
        if isinstance(value, list):
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = None if value is None else value.get(step)
    return value


def open_sealed(
    value: Mapping[str, Any] | None, key: DataKey | None, *, context: str, subject: UUID, field: str
) -> str | None:
    """The plain value of `sealed(event, field)`; ERASED where the key is gone; raises Tampered where it was
    moved.

    `subject` is the stream of the event and `context` its store.
    """
    if value is None:
        return None
    token = value["t"]
    if key is None or token == ERASED:
        return ERASED
    return open_value(key, Origin(context, subject, value["v"], value["n"]), field, token)


# comparing


class DocumentsHash:
    """A hash over documents in any order: equal for equal sets of documents, wherever and whenever they were
    folded."""

    def __init__(self) -> None:
        self._sum = 0
        self.count = 0

    def add(self, collection: str, document: Mapping[str, Any]) -> None:
        """Adds a document; the order of its fields does not matter."""
        self.plus_digest(self.digest(collection, document))

    @staticmethod
    def digest(collection: str, document: Mapping[str, Any]) -> int:
        """What a document adds to the hash."""
        digest = blake2b(b"%b\0%b" % (collection.encode(), _encode(document)), digest_size=_HASH_BYTES)
        return int.from_bytes(digest.digest())

    def plus_digest(self, digest: int) -> None:
        """Adds a document that is given as its digest."""
        self._sum = (self._sum + digest) % _HASH_SPACE
        self.count += 1

    def plus(self, other: "DocumentsHash") -> None:
        """Adds the documents of another hash."""
        self._sum = (self._sum + other._sum) % _HASH_SPACE
        self.count += other.count

    def hexdigest(self) -> str:
        """The hash, with the number of documents in front."""
        return f"{self.count}-{self._sum:0{2 * _HASH_BYTES}x}"

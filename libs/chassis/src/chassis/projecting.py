"""Views: what one is, and how a batch of events becomes writes.

A view is pure: `keys` says which documents an event changes, `project` what becomes of each. The runtime folds a batch
document by document, writes each collection once, and saves how far it is last.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from chassis.delivered import Delivered
from chassis.documents import Document, DocumentKey

__all__ = ["Collection", "Delivered", "Document", "DocumentKey", "Index", "View"]


@dataclass(frozen=True, slots=True)
class Index:
    """An index: fields with 1 or -1; `partial` is a filter expression."""

    fields: tuple[tuple[str, int], ...]
    unique: bool = False
    partial: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of a view. In an `insert_only` one every document is made by one event and never changed again.

    Insert-only collections are written before the others of the same batch, so that whoever reads a document of the
    others finds the inserted ones up to its `_seq`.
    """

    name: str
    indexes: tuple[Index, ...] = ()
    insert_only: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """A read model.

    `sources` are topics; `events` are the types that it takes, others are passed over unread. `keys(event)` names the
    documents that the event changes, each of which belongs to the event's subject alone. `project(key, document,
    event)` gives the document after the event, None for none; the document given is the view's to change. `_id` and
    `_seq` are the runtime's. Whatever the two raise parks the subject. Raise `version` when the same events give other
    documents than before: the view is then built anew beside the old one.
    """

    name: str
    version: int
    sources: tuple[str, ...]
    events: frozenset[str]
    collections: tuple[Collection, ...]
    keys: Callable[[Delivered], Sequence[DocumentKey]]
    project: Callable[[DocumentKey, Document | None, Delivered], Document | None]

    def collection(self, name: str) -> Collection:
        """The collection of that name."""
        return next(collection for collection in self.collections if collection.name == name)

"""The watchers that want the same: the documents that meet their condition, and what a change is to them. Pure."""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import date

from chassis.conditions import Condition, Fields, holds
from chassis.read.documents import GONE, Document, DocumentId
from chassis.watching.watchers import Kind, Wanted, Watcher


class Group:
    """The watchers that want the same. `fields`: what conditions can ask of a document."""

    __slots__ = (
        "_fields",
        "as_of",
        "joined",
        "loaded_until",
        "loading",
        "members",
        "touched",
        "wanted",
        "watchers",
    )

    def __init__(self, wanted: Wanted, fields: Fields, as_of: date) -> None:
        self.wanted = wanted
        self._fields = fields
        self.watchers: set[Watcher] = set()
        self.members: set[DocumentId] = set()
        """The documents that meet the condition, where there is one."""
        self.touched: set[DocumentId] | None = None if wanted.whole is None else set()
        """While the members are loaded: the documents that changed meanwhile."""
        self.loaded_until = ""
        """The members may show every change up to this place, also those that were not heard yet."""
        self.as_of = as_of
        """The business date on which the members meet the condition, which its watchers know."""
        self.joined = False
        """Whether one of its watchers was told something."""
        self.loading: asyncio.Task[None] | None = None

    def meets(self, document: Document | None, as_of: date) -> bool:
        """Whether there is the document, and all that is wanted holds of it."""
        return self._holds(self.wanted.whole, document, as_of)

    def may_be_told(self, document: Document | None) -> bool:
        """Whether its watchers may learn that the document changed."""
        return not self.wanted.hides or self._holds(self.wanted.scope, document, self.as_of)

    def kinds(
        self,
        changed: frozenset[DocumentId],
        documents: Mapping[DocumentId, Document | None],
        again: frozenset[DocumentId],
        *,
        ahead: bool,
    ) -> Iterable[tuple[DocumentId, Kind]]:
        """What the changes are to its watchers. A document that was not read was changed before the members were loaded.

        `again` changed more than once of late; `ahead` says that the members may show what was not told yet.
        """
        if self.wanted.whole is None:
            for id in changed:
                yield id, "changed"
            return
        for id in changed & documents.keys():
            before, now = id in self.members, self.meets(documents[id], self.as_of)
            if now:
                self.members.add(id)
                yield id, "changed" if before else "entered"
            elif before or ((id in again or ahead) and self.may_be_told(documents[id])):
                # A client may have read the document while it met the condition, between two rounds or before the load.
                self.members.discard(id)
                yield id, "left"

    def _holds(self, condition: Condition | None, document: Document | None, as_of: date) -> bool:
        if document is None or GONE in document or condition is None:
            return False
        return holds(condition, document, self._fields, as_of)

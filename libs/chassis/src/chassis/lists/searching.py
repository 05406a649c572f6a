"""Searches by the whole value of a sealed field: each is an event, and nothing is shown before it is stored.

The value is in no event. Whom it found is. The events are not published; the store is the audit log.
"""

from collections.abc import Sequence
from typing import Final
from uuid import UUID, uuid5

import msgspec

from chassis.privacy.keys import KeyRing
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, Decider, Outcome
from chassis.write.events import Event
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

FOUND_MAX: Final = 50
"""Documents that one search shows."""
_NAMESPACE: Final = UUID("3f8c2f0e-5b7a-5d5e-9a0c-4c1b6d2e8f31")


class ValueSearched(Event, frozen=True):
    """Somebody searched a list by the value of a field and was shown these; `more`: there were others."""

    listing: str
    field: str
    found: tuple[UUID, ...]
    more: bool


SEARCHES: Final[dict[str, type[Event]]] = {"value-searched": ValueSearched}
"""Their stored names, for the catalogue of a context."""


class _Search(msgspec.Struct, frozen=True):
    """Notes a search. A search that is noted already is not noted again."""

    searched: ValueSearched


class _Asked(msgspec.Struct, frozen=True):
    """What the same key may be used for again: the same search, whatever it finds."""

    listing: str
    field: str
    digests: tuple[str, ...]


def _decide(command: _Search, noted: bool) -> Sequence[ValueSearched]:
    return [] if noted else [command.searched]


def _evolve(_: bool, __: ValueSearched) -> bool:
    return True


_SEARCH: Final = Decider[_Search, bool, ValueSearched](
    initial=False, decide=_decide, evolve=_evolve, events=ValueSearched
)


class Searches:
    """Notes the searches of one context."""

    def __init__(self, store: EventStore, catalogue: Catalogue, keys: KeyRing) -> None:
        self._store = catalogue.store
        self._handler = CommandHandler[_Search, bool, ValueSearched](_SEARCH, store, catalogue, keys)

    async def note(
        self, searched: ValueSearched, digests: Sequence[str], context: CommandContext
    ) -> Outcome[ValueSearched]:
        """Stores that the caller searched for what has these digests. The same key again notes nothing; raises
        CommandKeyReused where it was used for another search."""
        stream = uuid5(_NAMESPACE, f"{self._store}|{context.key}")
        asked = _Asked(searched.listing, searched.field, tuple(digests))
        return await self._handler.handle(stream, _Search(searched), context, asked=asked)

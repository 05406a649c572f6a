"""What changed in a collection since a place: remembered for a while, read from the server's log before that."""

import asyncio
from typing import Final

from chassis.clock import Clock
from chassis.read.changes import Changed, ChangeLog, ChangesLost, is_ahead, reaches
from chassis.read.documents import DocumentId

CATCH_UPS_AT_ONCE: Final = 8
CATCH_UP_SECONDS_MAX: Final = 5.0
"""Whoever cannot be told within this time what changed reads everything again."""
CATCH_UP_SECONDS: Final = 0.02
"""The time for which the server waits where nothing changed any more."""
CAUGHT_UP_MAX: Final = 1_000
"""Documents that changed while a watcher was away, of which it is still told one by one."""
RECENT_SECONDS: Final = 60.0
"""For which a process remembers what changed: whoever comes again within it costs the server nothing."""
RECENT_MAX: Final = 50_000
MIDDLE_SECONDS: Final = 5.0
"""Longer than from the moment when a document can be read until its change is heard and told."""


class Recall:
    """What changed in one collection. It is told of every change that is heard (`remember`)."""

    def __init__(self, log: ChangeLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._catching_up = asyncio.Semaphore(CATCH_UPS_AT_ONCE)
        self._collection = ""
        self._recent: dict[DocumentId, tuple[float, str]] = {}
        """The documents that changed last, in that order: when that was heard, and the place up to which."""
        self._recent_from = ""
        """All that changed after this place is in `_recent`."""

    def begin(self, collection: str, place: str) -> None:
        """Everything of a collection is heard from a place on."""
        self._collection = collection
        self._recent, self._recent_from = {}, place

    def remember(self, found: Changed) -> None:
        """Keeps for a while which documents changed."""
        now, recent = self._clock.monotonic(), self._recent
        for id in found.ids:
            recent.pop(id, None)
            recent[id] = (now, found.place)
        while recent:
            first = next(iter(recent))
            heard_at, place = recent[first]
            if len(recent) <= RECENT_MAX and now - heard_at <= RECENT_SECONDS:
                break
            del recent[first]
            self._recent_from = place

    def changed_before(self, changed: frozenset[DocumentId]) -> set[DocumentId]:
        """Which of these changed a moment ago too."""
        since = self._clock.monotonic() - MIDDLE_SECONDS
        return {id for id in changed & self._recent.keys() if self._recent[id][0] >= since}

    async def since(
        self, after: str, ids: frozenset[DocumentId] | None, *, from_memory: bool
    ) -> set[DocumentId]:
        """What changed after a place, of these ids, `CAUGHT_UP_MAX` or some more; raises ChangesLost."""
        if is_ahead(after, await self._log.end()):
            raise ChangesLost(after)
        remembered = self._remembered(after, ids) if from_memory else None
        if remembered is not None:
            return remembered
        try:
            async with asyncio.timeout(CATCH_UP_SECONDS_MAX), self._catching_up:
                return await self._read_since(after, ids)
        except TimeoutError as error:
            raise ChangesLost(after) from error

    def _remembered(self, after: str, ids: frozenset[DocumentId] | None) -> set[DocumentId] | None:
        """What changed after a place, of these ids; None where that is too long ago."""
        if reaches(self._recent_from, after):
            return None
        found: set[DocumentId] = set()
        for id, (_, place) in reversed(self._recent.items()):
            if not reaches(place, after):
                break
            if ids is None or id in ids:
                found.add(id)
        return found

    async def _read_since(self, after: str, ids: frozenset[DocumentId] | None) -> set[DocumentId]:
        """As `_remembered`, from the server; raises ChangesLost."""
        until, found = await self._log.end(), set[DocumentId]()
        changes = await self._log.opened(self._collection, after, ids)
        try:
            some: tuple[DocumentId, ...] | None = None
            while (some or not reaches(changes.place, until)) and len(found) <= CAUGHT_UP_MAX:
                some = (await changes.next(CATCH_UP_SECONDS)).ids
                found.update(some)
        finally:
            await changes.close()
        return found

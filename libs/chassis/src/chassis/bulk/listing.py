"""The lists of bulk runs: made once, some items an event, and read a part at a time.

A list that was not completed, after a crash, is made anew. Once it is complete it does not change.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Final, NamedTuple, cast
from uuid import UUID

from msgspec import structs

from chassis.bulk.deciding import (
    LISTED_PER_EVENT,
    BulkCommand,
    BulkEvent,
    BulkListed,
    BulkNotReady,
    Complete,
    List,
    Open,
    Run,
)
from chassis.clock import Clock, uuid7
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext, CommandKeyReused, TooManyConflicts
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

ITEMS_DIGEST_BYTES: Final = 32


class Item(NamedTuple):
    """A subject, and the version that an undo expects of it; 0 where none is expected."""

    subject: UUID
    version: int


class Lists:
    """Makes and reads the lists of the runs of one context."""

    def __init__(
        self,
        handler: CommandHandler[BulkCommand, Run, BulkEvent],
        store: EventStore,
        catalogue: Catalogue,
        clock: Clock,
    ) -> None:
        self._handler = handler
        self._store = store
        self._catalogue = catalogue
        self._clock = clock

    async def make(
        self, run: UUID, opening: Open, items: AsyncIterator[Item], context: CommandContext
    ) -> None:
        """Lists the items of a run, unless they are listed; raises CommandKeyReused, TooManyConflicts, BulkOversized."""
        if await self._is_listed(run, opening):
            return
        try:
            await self._list_all(run, opening, items, context)
        except BulkNotReady:
            # The same run was listed by another caller at the same time.
            if not await self._is_listed(run, opening):
                raise TooManyConflicts from None

    async def items(self, run: UUID, state: Run, first: int, count: int) -> list[Item]:
        """At most so many items from number `first` on; none for a number that no item has."""
        count = min(count, state.items - first)
        if first < 0 or count <= 0:
            return []
        begin, end = first // LISTED_PER_EVENT, (first + count - 1) // LISTED_PER_EVENT
        after = state.listed_from - 1 + begin
        stored = await self._store.read_stream(run, after, end - begin + 1)
        found: list[Item] = []
        for one in stored:
            if one.name == "bulk-listed":
                found += _of(cast(BulkListed, self._catalogue.open(one, None).event))
        skipped = first - begin * LISTED_PER_EVENT
        return found[skipped : skipped + count]

    async def digest(self, run: UUID, state: Run) -> str:
        """Names the items in their order, with the versions that are expected."""
        digest = blake2b(digest_size=ITEMS_DIGEST_BYTES)
        for first in range(0, state.items, LISTED_PER_EVENT):
            for item in await self.items(run, state, first, LISTED_PER_EVENT):
                digest.update(item.subject.bytes + item.version.to_bytes(8, "big"))
        return digest.hexdigest()

    async def _is_listed(self, run: UUID, opening: Open) -> bool:
        self._handler.forget(run)
        state = (await self._handler.load(run)).state
        if state.status == "none":
            return False
        if (state.kind, state.command, state.undoes) != (opening.kind, opening.command, opening.undoes):
            raise CommandKeyReused
        if state.asked not in {"", opening.asked}:
            raise CommandKeyReused
        return state.status != "listing"

    async def _list_all(
        self, run: UUID, opening: Open, items: AsyncIterator[Item], context: CommandContext
    ) -> None:
        await self._step(run, opening, context)
        count, waiting = 0, list[Item]()
        async for item in items:
            waiting.append(item)
            if len(waiting) == LISTED_PER_EVENT:
                count += await self._list(run, opening.listing, count, waiting, context)
                waiting.clear()
        if waiting:
            await self._list(run, opening.listing, count, waiting, context)
        await self._step(run, Complete(opening.listing), context)

    async def _list(
        self, run: UUID, listing: UUID, first: int, items: Sequence[Item], context: CommandContext
    ) -> int:
        versions = tuple(item.version for item in items) if items[0].version else ()
        await self._step(run, List(listing, first, tuple(item.subject for item in items), versions), context)
        return len(items)

    async def _step(self, run: UUID, command: BulkCommand, context: CommandContext) -> None:
        """One step of a list. Its key is no caller's: a list that was not completed is made anew."""
        step = structs.replace(context, command_id=uuid7(self._clock.now()), idempotency_key=None)
        await self._handler.handle(run, command, step)


async def listed(subjects: Iterable[UUID]) -> AsyncIterator[UUID]:
    """Ids that are at hand, as a list that is read bit by bit."""
    for subject in subjects:
        yield subject


def lists_of(state: Run) -> int:
    """How many events list the items of a run."""
    return -(-state.items // LISTED_PER_EVENT)


def _of(event: BulkListed) -> Iterator[Item]:
    versions = event.versions or (0,) * len(event.subjects)
    return map(Item, event.subjects, versions)

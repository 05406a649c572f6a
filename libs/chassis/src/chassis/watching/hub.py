"""The hub of a process: hears the changes of a view's collection once, and tells every watcher of them.

The collection of the live generation is heard through MongoDB's change stream (ADR 0052). A document is therefore
written before anybody is told of it. Where a watcher cannot be told everything since it was last here, because another
generation is live, the server's log does not go back that far, too much changed or the bank day is another one, it is
told `reset`: it reads everything again. So is one that comes again, where a document changed meanwhile that is out of
the scope of its caller: to name the document would tell of it, and to say nothing could leave it with the caller.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Final

import structlog

from chassis.clock import Clock
from chassis.conditions import Condition, Fields, as_filter, holds
from chassis.connections.transient import is_transient, why
from chassis.ending import ended
from chassis.observability import metrics
from chassis.read.changes import Changed, ChangeLog, Changes, ChangesLost, MongoChangeLog, is_ahead, reaches
from chassis.read.deriving import DerivedView
from chassis.read.documents import GONE, ID, Document, DocumentId, DocumentsUnavailable
from chassis.read.generations import NotBuilt, ViewReader, partitions_of
from chassis.read.mongo_checkpoints import MongoCheckpoints
from chassis.read.projecting import View
from chassis.watching.watchers import PENDING_MAX, Kind, Reason, Wanted, Watcher
from chassis.web.consistency import consistency_tokens
from chassis.web.problems import Overloaded
from chassis.write.deciding import Refusal

HEAR_SECONDS: Final = 0.5
"""The time for which the server waits for a change before it answers that there is none."""
ROUND_SECONDS: Final = 0.1
"""From one round of telling to the next. Changes of a document in between are told as one."""
SETTLE_SECONDS: Final = 2.0
"""From the switch of a generation until watchers are told to read again: by then every process reads it, because it
remembers for `LIVE_CACHED_SECONDS` which one is live."""
BACK_OFF_SECONDS: Final = 1.0
JOIN_SECONDS_MAX: Final = 10.0
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
CONDITIONS_MAX: Final = 200
"""Different ones that are asked of every document that changes."""
MEMBERS_MAX: Final = 10_000
"""Documents that meet a watched condition."""
MEMBERS_OF_ALL_MAX: Final = 200_000
_ID: Final = re.compile(r"([0-9]{1,9})\.([0-9]{8})\.([0-9a-f]{32})\.([0-9A-F]{2,2000})", re.ASCII)

_log = structlog.get_logger(__name__)


class ConditionWide(Refusal):
    """More documents meet the condition than are watched together."""

    code = "condition-wide"
    status = 422
    title = f"More than {MEMBERS_MAX} documents meet the condition; watch a narrower one"
    title_zh = f"满足条件的记录超过 {MEMBERS_MAX} 条，请缩小条件范围"


@dataclass(frozen=True, slots=True)
class Watched:
    """A collection of a view that can be watched. `fields`: what conditions can ask of its documents."""

    view: View | DerivedView
    collection: str
    fields: Fields

    @property
    def sources(self) -> tuple[View, ...]:
        """The views that say which events its documents may show."""
        return self.view.inputs if isinstance(self.view, DerivedView) else (self.view,)


class _Group:
    """The watchers that want the same."""

    __slots__ = ("as_of", "joined", "loaded_until", "loading", "members", "touched", "wanted", "watchers")

    def __init__(self, wanted: Wanted, as_of: date) -> None:
        self.wanted = wanted
        self.watchers: set[Watcher] = set()
        self.members: set[DocumentId] = set()
        """The documents that meet the condition, where there is one."""
        self.touched: set[DocumentId] | None = None if wanted.whole is None else set()
        """While the members are loaded: the documents that changed meanwhile."""
        self.loaded_until = ""
        """The members may show every change up to this place, also those that were not heard yet."""
        self.as_of = as_of
        """The bank day on which the members meet the condition, which its watchers know."""
        self.joined = False
        """Whether one of its watchers was told something."""
        self.loading: asyncio.Task[None] | None = None


class Hub:
    """Tells watchers of the changes of one collection. `run` it for as long as watchers are admitted."""

    def __init__(
        self,
        watched: Watched,
        reader: ViewReader,
        clock: Clock,
        today: Callable[[], date],
        log: ChangeLog | None = None,
        *,
        pending_max: int = PENDING_MAX,
        members_max: int = MEMBERS_MAX,
        conditions_max: int = CONDITIONS_MAX,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self.name = watched.view.name
        self.at_least = ""
        """The positions from which on a read shows everything that was told, and what members were loaded from."""
        self._shown: dict[str, int] = {}
        self._watched = watched
        self._reader = reader
        self._clock = clock
        self._today = today
        self._log = log or MongoChangeLog(reader.mongo)
        self._pending_max = pending_max
        self._members_max = members_max
        self._conditions_max = conditions_max
        self._settle_seconds = settle_seconds
        self._groups: dict[str, _Group] = {}
        self._somebody = asyncio.Event()
        self._following = asyncio.Event()
        self._catching_up = asyncio.Semaphore(CATCH_UPS_AT_ONCE)
        self._stream = 0
        """Counts the streams that began from then on, and not where the one before ended."""
        self._generation = 0
        self._collection = ""
        self._told = ""
        """The place up to which all watchers were told."""
        self._recent: dict[DocumentId, tuple[float, str]] = {}
        """The documents that changed last, in that order: when that was heard, and the place up to which."""
        self._recent_from = ""
        """All that changed after this place is in `_recent`."""

    # for a watcher

    @asynccontextmanager
    async def watching(
        self, wanted: Wanted, after: str | None, wake: Callable[[], None]
    ) -> AsyncIterator[Watcher]:
        """A watcher, told of everything since the event with the id `after`, or told to read everything.

        Raises ConditionWide, Overloaded, DocumentsUnavailable.
        """
        group = self._groups.get(wanted.digest)
        if group is None:
            wide = sum(one.wanted.ids is None for one in self._groups.values())
            if wanted.ids is None and wide >= self._conditions_max:
                raise Overloaded(f"{self._conditions_max} conditions are watched")
            group = self._groups[wanted.digest] = _Group(wanted, self._today())
        watcher = Watcher(wanted, self, wake, self._pending_max)
        group.watchers.add(watcher)
        self._somebody.set()
        try:
            await self._joined(group, watcher, after)
            yield watcher
        finally:
            group.watchers.discard(watcher)
            if not group.watchers and self._groups.get(wanted.digest) is group:
                del self._groups[wanted.digest]

    def place(self, wanted: Wanted) -> str:
        """The id of an event from which a watcher goes on."""
        group = self._groups.get(wanted.digest)
        # The day that the watcher was told, which may be over: whoever comes with it is told of the next one.
        day = self._today() if group is None else group.as_of
        return f"{self._generation}.{day:%Y%m%d}.{wanted.digest}.{self._told}"

    def was_reset(self, reason: Reason) -> None:
        """Counts a watcher that is told to read everything."""
        metrics.WATCH_RESETS.labels(self.name, reason).inc()

    async def _joined(self, group: _Group, watcher: Watcher, after: str | None) -> None:
        try:
            async with asyncio.timeout(JOIN_SECONDS_MAX):
                await self._following.wait()
                stream = self._stream
                await self._loaded(group)
                if after is not None and group.wanted.whole is not None:
                    await self._told_what_was_loaded(group)
                reason = "begun" if after is None else await self._caught_up(group, watcher, after)
        except TimeoutError as error:
            raise DocumentsUnavailable(f"the changes of {self.name} are not heard") from error
        group.joined = True
        if reason is not None:
            watcher.reset(reason)
        elif stream != self._stream:
            watcher.reset("rebuilt")

    async def _told_what_was_loaded(self, group: _Group) -> None:
        """Waits until everything was heard that the members show. A document that entered while the watcher was away would
        be told as `changed` otherwise, because it is a member when it is heard."""
        while not reaches(self._told, group.loaded_until):
            await self._clock.sleep(ROUND_SECONDS)

    async def _caught_up(  # noqa: PLR0911 (one for each reason)
        self, group: _Group, watcher: Watcher, after: str
    ) -> Reason | None:
        """Tells a watcher what changed between its last event and now; returns why it cannot be told."""
        known = _ID.fullmatch(after)
        if known is None or known[3] != group.wanted.digest:
            return "begun"
        if int(known[1]) != self._generation:
            return "rebuilt"
        wanted = group.wanted
        if wanted.whole is not None and known[2] != f"{group.as_of:%Y%m%d}":
            return "day"
        try:
            # Where ids are hidden, everything up to now is needed: what is heard later is told to those who know it.
            found = await self._changed_since(known[4], wanted.ids, from_memory=not wanted.hides)
        except ChangesLost:
            return "lost"
        if len(found) > CAUGHT_UP_MAX:
            return "slow"
        if wanted.hides and not await self._all_may_be_told(group, found):
            return "scope"
        if wanted.whole is None:
            watcher.put((id, "changed") for id in found)
        else:
            # What the client has is not known. It is told what the group knows: what changes that is told later.
            watcher.put((id, "entered" if id in group.members else "left") for id in found)
        return None

    async def _all_may_be_told(self, group: _Group, ids: Collection[DocumentId]) -> bool:
        """Whether the watchers of a group may learn that these changed. Of one that is out of their scope it is not known
        whether they ever saw it."""
        documents = await self._documents([id for id in ids if id not in group.members])
        return all(self._may_be_told(group, one) for one in documents.values())

    async def _changed_since(
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

    # members of a condition

    async def _loaded(self, group: _Group) -> None:
        """Waits until the members of a group are known; raises ConditionWide, Overloaded, DocumentsUnavailable."""
        if group.touched is None:
            return
        if group.loading is None or group.loading.done():
            group.loading = asyncio.create_task(self._load(group))
            group.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(group.loading)

    async def _load(self, group: _Group) -> None:
        condition, ids = group.wanted.whole, group.wanted.ids
        assert condition is not None  # noqa: S101 (others are never loaded)
        while True:
            stream, as_of, group.touched = self._stream, self._today(), set()
            parts = [as_filter(condition, self._watched.fields, as_of), {GONE: {"$exists": False}}]
            if ids is not None:
                parts.insert(0, {ID: {"$in": sorted(ids, key=str)}})
            limit = self._members_max + 1
            where = {"$and": parts}
            found = await self._reader.mongo.find(self._collection, where, fields={ID: 1}, limit=limit)
            if len(found) == limit:
                raise ConditionWide
            others = sum(len(one.members) for one in self._groups.values() if one is not group)
            if others + len(found) > MEMBERS_OF_ALL_MAX:
                raise Overloaded("too many documents are watched")
            members = {one[ID] for one in found}
            loaded_until = await self._log.end()
            while group.touched:
                touched, group.touched = group.touched, set()
                for id, document in (await self._documents(touched)).items():
                    (members.add if self._meets(group, document, as_of) else members.discard)(id)
                loaded_until = await self._log.end()
            # Who is told to read everything reads no less than what the members were loaded from.
            await self._renew_at_least()
            if stream == self._stream:
                if group.joined and as_of != group.as_of:
                    for watcher in group.watchers:
                        watcher.reset("day")
                group.members, group.touched, group.as_of = members, None, as_of
                group.loaded_until = loaded_until
                return

    def _meets(self, group: _Group, document: Document | None, as_of: date) -> bool:
        return self._holds(group.wanted.whole, document, as_of)

    def _holds(self, condition: Condition | None, document: Document | None, as_of: date) -> bool:
        """Whether there is the document, and it meets the condition."""
        if document is None or GONE in document or condition is None:
            return False
        return holds(condition, document, self._watched.fields, as_of)

    async def _documents(self, ids: Collection[DocumentId]) -> dict[DocumentId, Document | None]:
        """The documents of these ids as they are now; None where there is none."""
        found = await self._reader.mongo.find(self._collection, {ID: {"$in": sorted(ids, key=str)}})
        return {**dict.fromkeys(ids), **{one[ID]: one for one in found}}

    # hearing

    async def run(self) -> None:
        """Hears and tells until it is cancelled. While nobody watches it hears nothing."""
        while True:
            await self._somebody.wait()
            try:
                await self._follow()
            except ChangesLost:
                self._told = ""
                await self._clock.sleep(BACK_OFF_SECONDS)
            except Exception as error:  # noqa: BLE001 (it is told, and tried again)
                if is_transient(error) or isinstance(error, NotBuilt):
                    _log.warning("watchers are told nothing", view=self.name, reason=why(error))
                else:
                    _log.exception("telling watchers broke", view=self.name)
                    self._told = ""  # what it broke at is not told again: everybody reads
                await self._clock.sleep(BACK_OFF_SECONDS)

    async def _follow(self) -> None:
        """Hears the live generation while somebody watches it; raises ChangesLost, DocumentsUnavailable, NotBuilt."""
        live = await self._reader.live(self.name)
        if live.number != self._generation:
            self._following.clear()
            if self._generation:
                await self._clock.sleep(self._settle_seconds)
            self._told = ""
        collection = live.prefix + self._watched.collection
        changes = await self._log.opened(collection, self._told or None)
        try:
            if not self._told:
                await self._begin(changes, live.number, collection)
            while self._groups and (await self._reader.live(self.name)).number == self._generation:
                await self._next_day()
                await self._round(changes)
            if not self._groups:
                self._somebody.clear()
                self._following.clear()
                self._generation, self._told = 0, ""
        finally:
            await changes.close()

    async def _begin(self, changes: Changes, generation: int, collection: str) -> None:
        """Everything is heard from now on. Whoever watched before was not told of something, and reads again."""
        reason: Reason = "rebuilt" if self._generation not in {0, generation} else "lost"
        self._stream += 1
        self._generation, self._collection = generation, collection
        self._recent, self._recent_from = {}, changes.place
        await self._renew_at_least()
        before = [group for group in self._groups.values() if group.joined]
        await self._reload(before)
        self._told = changes.place
        self._following.set()
        for group in before:
            for watcher in list(group.watchers):
                watcher.reset(reason)

    async def _reload(self, groups: Iterable[_Group]) -> None:
        """Loads the members of groups anew. The watchers of a condition that has become too wide are ended."""
        for group in groups:
            if group.wanted.whole is not None:
                group.touched = set() if group.touched is None else group.touched
                try:
                    await self._loaded(group)
                except Refusal as refusal:
                    for watcher in list(group.watchers):
                        watcher.end(refusal.code)

    async def _next_day(self) -> None:
        """On another bank day other documents meet a condition, though none changed."""
        today = self._today()
        old = [
            group
            for group in list(self._groups.values())
            if group.joined and group.wanted.whole is not None and group.as_of != today
        ]
        await self._reload(old)

    async def _round(self, changes: Changes) -> None:
        began = self._clock.monotonic()
        found = await changes.next(HEAR_SECONDS)
        told = await self._tell(found) if found.ids else []
        self._told = found.place
        for watcher in told:
            watcher.wake()
        if found.ids and not found.more:
            await self._clock.sleep(max(0.0, ROUND_SECONDS - (self._clock.monotonic() - began)))

    async def _tell(self, found: Changed) -> list[Watcher]:
        """Puts changes to the watchers. Returns those that have any."""
        told: list[Watcher] = []
        changed = frozenset(found.ids)
        await self._renew_at_least()
        asked = self._asked(changed)
        documents = await self._documents(asked) if asked else {}
        again = found.again | self._changed_before(changed)
        self._remember(found)
        for group in list(self._groups.values()):
            mine = changed if group.wanted.ids is None else changed & group.wanted.ids
            if not mine:
                continue
            if group.touched is not None:
                group.touched |= mine
                continue
            kinds = list(self._kinds(group, mine, documents, again))
            if kinds:
                for watcher in group.watchers:
                    watcher.put(kinds)
                told += group.watchers
            if len(group.members) > 2 * self._members_max:
                for watcher in group.watchers:
                    watcher.end(ConditionWide.code)
            await asyncio.sleep(0)  # other requests of the process go on between two groups
        if found.at is not None:
            lag = (self._clock.now() - found.at).total_seconds()
            metrics.WATCH_LAG_SECONDS.labels(self.name).observe(max(0.0, lag))
        return told

    def _changed_before(self, changed: frozenset[DocumentId]) -> set[DocumentId]:
        """Which of these changed a moment ago too."""
        since = self._clock.monotonic() - MIDDLE_SECONDS
        return {id for id in changed & self._recent.keys() if self._recent[id][0] >= since}

    def _remember(self, found: Changed) -> None:
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

    def _asked(self, changed: frozenset[DocumentId]) -> set[DocumentId]:
        """The changed documents of which a condition is asked."""
        asked: set[DocumentId] = set()
        for wanted in (group.wanted for group in self._groups.values()):
            if wanted.whole is not None:
                asked |= changed if wanted.ids is None else changed & wanted.ids
        return asked

    def _kinds(
        self,
        group: _Group,
        changed: frozenset[DocumentId],
        documents: Mapping[DocumentId, Document | None],
        again: frozenset[DocumentId],
    ) -> Iterable[tuple[DocumentId, Kind]]:
        """What the changes are to a group. A document that was not read was changed before its members were loaded."""
        if group.wanted.whole is None:
            for id in changed:
                yield id, "changed"
            return
        ahead = not reaches(self._told, group.loaded_until)
        for id in changed & documents.keys():
            before, now = id in group.members, self._meets(group, documents[id], group.as_of)
            if now:
                group.members.add(id)
                yield id, "changed" if before else "entered"
            elif before or ((id in again or ahead) and self._may_be_told(group, documents[id])):
                # A client may have read the document while it met the condition, between two rounds or before the load.
                group.members.discard(id)
                yield id, "left"

    def _may_be_told(self, group: _Group, document: Document | None) -> bool:
        return not group.wanted.hides or self._holds(group.wanted.scope, document, group.as_of)

    async def _renew_at_least(self) -> None:
        for context, position in (await self._positions()).items():
            self._shown[context] = max(position, self._shown.get(context, 0))
        self.at_least = consistency_tokens(self._shown)

    async def _positions(self) -> dict[str, int]:
        """By context: no document shows an event after this position."""
        found: dict[str, int] = {}
        for view in self._watched.sources:
            group = (await self._reader.live(view.name)).group
            contexts = partitions_of(view.sources)
            shown = await MongoCheckpoints(self._reader.mongo, group, view.name).shown()
            for place, at in shown.items():
                if at and (context := contexts.get(place)) is not None:
                    found[context] = max(at, found.get(context, 0))
        return found


@asynccontextmanager
async def hearing(hub: Hub | None) -> AsyncIterator[None]:
    """Runs a hub, if there is one."""
    tasks = [] if hub is None else [asyncio.create_task(hub.run())]
    try:
        yield
    finally:
        await ended(*tasks)

"""The hub of a process: hears the changes of a view's collection once, and tells every watcher of them.

The collection of the live generation is heard through MongoDB's change stream (ADR 0052). A document is therefore
written before anybody is told of it. Where a watcher cannot be told everything since it was last here, because another
generation is live, the server's log does not go back that far, too much changed or the business date is another one, it is
told `reset`: it reads everything again. So is one that comes again, where a document changed meanwhile that is out of
the scope of its caller: to name the document would tell of it, and to say nothing could leave it with the caller.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from typing import Final

import structlog

from chassis.clock import Clock
from chassis.conditions import Fields, as_filter
from chassis.connections.transient import is_transient, why
from chassis.ending import ended
from chassis.observability import metrics
from chassis.read.changes import Changed, ChangeLog, Changes, ChangesLost, MongoChangeLog, reaches
from chassis.read.deriving import DerivedView
from chassis.read.documents import GONE, ID, Document, DocumentId, DocumentsUnavailable
from chassis.read.generations import NotBuilt, ViewReader
from chassis.read.projecting import View
from chassis.watching.groups import Group
from chassis.watching.reaching import Reaching
from chassis.watching.recalling import CAUGHT_UP_MAX, Recall
from chassis.watching.watchers import PENDING_MAX, Reason, Wanted, Watcher
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
        self._watched = watched
        self._reader = reader
        self._reaching = Reaching(watched.sources, reader)
        self._clock = clock
        self._today = today
        self._log = log or MongoChangeLog(reader.mongo)
        self._recall = Recall(self._log, clock)
        self._pending_max = pending_max
        self._members_max = members_max
        self._conditions_max = conditions_max
        self._settle_seconds = settle_seconds
        self._groups: dict[str, Group] = {}
        self._somebody = asyncio.Event()
        self._following = asyncio.Event()
        self._stream = 0
        """Counts the streams that began from then on, and not where the one before ended."""
        self._generation = 0
        self._collection = ""
        self._told = ""
        """The place up to which all watchers were told."""

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
            group = self._groups[wanted.digest] = Group(wanted, self._watched.fields, self._today())
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

    @property
    def at_least(self) -> str:
        """The positions from which on a read shows everything that was told, and what members were loaded from."""
        return self._reaching.at_least

    def place(self, wanted: Wanted) -> str:
        """The id of an event from which a watcher goes on."""
        group = self._groups.get(wanted.digest)
        # The day that the watcher was told, which may be over: whoever comes with it is told of the next one.
        day = self._today() if group is None else group.as_of
        return f"{self._generation}.{day:%Y%m%d}.{wanted.digest}.{self._told}"

    def was_reset(self, reason: Reason) -> None:
        """Counts a watcher that is told to read everything."""
        metrics.WATCH_RESETS.labels(self.name, reason).inc()

    async def _joined(self, group: Group, watcher: Watcher, after: str | None) -> None:
        try:
            async with asyncio.timeout(JOIN_SECONDS_MAX):
                await self._following.wait()
                stream = self._stream
                await self._loaded(group)
                reason = "begun" if after is None else await self._caught_up(group, watcher, after)
        except TimeoutError as error:
            raise DocumentsUnavailable(f"the changes of {self.name} are not heard") from error
        group.joined = True
        if reason is not None:
            watcher.reset(reason)
        elif stream != self._stream:
            watcher.reset("rebuilt")

    async def _caught_up(  # noqa: PLR0911 (one for each reason)
        self, group: Group, watcher: Watcher, after: str
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
            found = await self._recall.since(known[4], wanted.ids, from_memory=not wanted.hides)
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

    async def _all_may_be_told(self, group: Group, ids: Collection[DocumentId]) -> bool:
        """Whether the watchers of a group may learn that these changed. Of one that is out of their scope it is not known
        whether they ever saw it."""
        documents = await self._documents([id for id in ids if id not in group.members])
        return all(group.may_be_told(one) for one in documents.values())

    # members of a condition

    async def _loaded(self, group: Group) -> None:
        """Waits until the members of a group are known; raises ConditionWide, Overloaded, DocumentsUnavailable."""
        if group.touched is None:
            return
        if group.loading is None or group.loading.done():
            group.loading = asyncio.create_task(self._load(group))
            group.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(group.loading)

    async def _load(self, group: Group) -> None:
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
            while True:
                loaded_until = await self._log.end()
                # Who is told to read everything reads no less than what the members were loaded from.
                await self._reaching.renew()
                if not group.touched:  # nothing is awaited from here on: what is heard then finds the members
                    break
                touched, group.touched = group.touched, set()
                for id, document in (await self._documents(touched)).items():
                    (members.add if group.meets(document, as_of) else members.discard)(id)
            if stream == self._stream:
                if group.joined and as_of != group.as_of:
                    for watcher in group.watchers:
                        watcher.reset("day")
                group.members, group.touched, group.as_of = members, None, as_of
                group.loaded_until = loaded_until
                return

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
        self._recall.begin(collection, changes.place)
        await self._reaching.renew()
        before = [group for group in self._groups.values() if group.joined]
        await self._reload(before)
        self._told = changes.place
        self._following.set()
        for group in before:
            for watcher in list(group.watchers):
                watcher.reset(reason)

    async def _reload(self, groups: Iterable[Group]) -> None:
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
        """On another business date other documents meet a condition, though none changed."""
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
        await self._reaching.renew()
        asked = self._asked(changed)
        documents = await self._documents(asked) if asked else {}
        again = found.again | self._recall.changed_before(changed)
        self._recall.remember(found)
        for group in list(self._groups.values()):
            mine = changed if group.wanted.ids is None else changed & group.wanted.ids
            if not mine:
                continue
            if group.touched is not None:
                group.touched |= mine
                continue
            ahead = not reaches(self._told, group.loaded_until)
            kinds = list(group.kinds(mine, documents, again, ahead=ahead))
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

    def _asked(self, changed: frozenset[DocumentId]) -> set[DocumentId]:
        """The changed documents of which a condition is asked."""
        asked: set[DocumentId] = set()
        for wanted in (group.wanted for group in self._groups.values()):
            if wanted.whole is not None:
                asked |= changed if wanted.ids is None else changed & wanted.ids
        return asked


@asynccontextmanager
async def hearing(hub: Hub | None) -> AsyncIterator[None]:
    """Runs a hub, if there is one."""
    tasks = [] if hub is None else [asyncio.create_task(hub.run())]
    try:
        yield
    finally:
        await ended(*tasks)

"""Prepares bulk runs and does their items, each once, with any number of runners and crashes.

What becomes of an item is settled in the store under a key of run and item: with its events, with nothing to do, or as
refused. Whoever comes second, after a crash or at the same time, finds it settled.
"""

import asyncio
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Mapping,
    Sequence,
)
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast
from uuid import UUID, uuid5

import msgspec
import structlog

from chassis.bulk.deciding import (
    BULK_RUN,
    RESULTS_PER_EVENT_MAX,
    UNCHANGED,
    Advance,
    BulkAdvanced,
    BulkCommand,
    BulkEvent,
    BulkNotFinished,
    BulkNotReady,
    BulkUnknown,
    Open,
    Pause,
    Run,
    Start,
    Status,
)
from chassis.bulk.declaring import Bulkable
from chassis.bulk.listing import Item, Lists, lists_of
from chassis.clock import Clock, uuid7
from chassis.connections.transient import Transient, is_transient
from chassis.privacy.keys import KeyRing
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import (
    Approved,
    CommandContext,
    CommandKeyReused,
    Outcome,
    Refusal,
    TooManyConflicts,
    VersionMismatch,
)
from chassis.write.events import Metadata
from chassis.write.handling import CommandHandler
from chassis.write.snapshots import Snapshots
from chassis.write.store import Append, Appended, Command, CommandSeen, EventStore

_NAMESPACE: Final = UUID("6f1d9f0e-7f0b-5a3e-8a55-0f5c1d2b7a47")
ITEMS_AT_ONCE: Final = 1_000
PREVIEWED_MAX: Final = 200
TRIES_MAX: Final = 5
SETTLED_KEPT: Final = timedelta(hours=20)
"""Commands are remembered for a day at least. After this long without progress, the streams are asked instead."""
RUN_EVENTS_READ: Final = 20
SUBJECT_EVENTS_READ: Final = 20
"""A command has few events, so the one before it is mostly among these."""
RUNS_READ: Final = 100
SNAPSHOT_EVENTS: Final = 20
"""The lists of a run are its large events; who asks how far it is does not read them."""
_REFUSED: Final = b"refused:"
ITEM_FAILED: Final = "item-failed"
"""The result of an item whose command broke. The others go on."""

_log = structlog.get_logger()


class Preview(msgspec.Struct, frozen=True):
    """What the first items would come to: how many were tried, and how many of them each way."""

    tried: int
    changed: int
    unchanged: int
    refused: dict[str, int]


class Contents(msgspec.Struct, frozen=True):
    """What a run gives, and to which items. It does not change once the list is complete.

    `items_digest` names the items in their order, with the versions that an undo expects of them.
    """

    run_id: UUID
    gives: str
    command: dict[str, Any]
    undoes: UUID | None
    selection: str
    items: int
    items_digest: str


class ItemResult(NamedTuple):
    """What became of an item: `done` with its version, `unchanged`, or the code of the refusal."""

    number: int
    subject: UUID
    result: str
    version: int | None


class BulkShown(msgspec.Struct, frozen=True):
    """A run as it is now: how many of its items have which result."""

    run_id: UUID
    kind: str
    status: Status
    items: int
    settled: int
    done: int
    unchanged: int
    refused: int
    undoes: UUID | None
    command: dict[str, Any]
    selection: str
    needs_approval: bool
    position: int


class Bulk:
    """The bulk runs of one context; use it from one event loop.

    `kinds` are the commands that can be given to many, by a name that never changes. `reached` is called at the points
    `before-chunk` and `before-advance` of a run, and at those of each of its commands.
    """

    def __init__(
        self,
        store: EventStore,
        catalogue: Catalogue,
        keys: KeyRing,
        kinds: Mapping[str, Bulkable],
        clock: Clock,
        *,
        items_at_once: int = ITEMS_AT_ONCE,
        runs_read: int = RUNS_READ,
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._keys = keys
        self._kinds = dict(kinds)
        self._clock = clock
        self._items_at_once = min(items_at_once, RESULTS_PER_EVENT_MAX)
        self._runs_read = runs_read
        self._reached = reached
        self._paused: dict[UUID, int] = {}
        """The runs that were paused when they were looked at, by the version of then."""
        snapshots = Snapshots(store, keys, kind="bulk-run", decider=BULK_RUN, every_events=SNAPSHOT_EVENTS)
        self._handler = CommandHandler[BulkCommand, Run, BulkEvent](
            BULK_RUN, store, catalogue, keys, snapshots=snapshots, reached=reached
        )
        self._lists = Lists(self._handler, store, catalogue, clock)

    @property
    def kinds(self) -> Mapping[str, Bulkable]:
        """The commands that can be given to many, by name."""
        return self._kinds

    # preparing

    async def prepare(
        self,
        kind: str,
        command: msgspec.Struct,
        subjects: AsyncIterable[UUID],
        context: CommandContext,
        *,
        asked: Any = None,
        selection: str = "",
    ) -> BulkShown:
        """Lists the items; nothing is done to them yet. The same key again gives the same run.

        A subject that is listed twice is done once. `asked` is what the caller asked for, where that is more than the
        command: the list, or the condition that gave it; `selection` words that condition. Raises BulkOversized, and
        CommandKeyReused where the key was used for something else.
        """
        if not isinstance(command, self._kinds[kind].command):
            raise TypeError(f"{kind} is a {self._kinds[kind].command.__name__}")
        run = self._run_of(context)
        said = msgspec.json.encode(command, order="deterministic").decode()

        async def items() -> AsyncIterator[Item]:
            async for subject in subjects:
                yield Item(subject, 0)

        opening = self._opening(kind, said, _digest(asked, context), selection=selection)
        await self._lists.make(run, opening, items(), context)
        return await self.shown(run)

    async def prepared(self, kind: str, context: CommandContext) -> Any:
        """The command of the run of this kind that was prepared under this key, for who would look up what it says anew; None
        where there is none."""
        state = await self._state(self._run_of(context))
        return None if state.status == "none" or state.kind != kind else self._command(state)

    async def prepare_undo(self, undone: UUID, context: CommandContext) -> BulkShown:
        """Lists what a run has changed, to be taken back; raises BulkNotFinished where it still runs."""
        state = await self._known(undone)
        if state.status not in {"finished", "paused"}:
            raise BulkNotFinished(f"it is {state.status}")
        if state.undoes is not None or self._kinds[state.kind].undo is None:
            raise BulkNotFinished("it cannot be undone")
        run = self._run_of(context)

        async def items() -> AsyncIterator[Item]:
            async for _, item, result, _ in self._results(undone, state, 0):
                if result > UNCHANGED:
                    yield Item(item.subject, result)

        opening = self._opening(state.kind, state.command, _digest(None, context), undoes=undone)
        await self._lists.make(run, opening, items(), context)
        return await self.shown(run)

    def _run_of(self, context: CommandContext) -> UUID:
        return uuid5(_NAMESPACE, f"{self._catalogue.store}|{context.key}")

    def _opening(
        self, kind: str, command: str, asked: str, *, undoes: UUID | None = None, selection: str = ""
    ) -> Open:
        approval = self._kinds[kind].approval
        alone_items_max = None if approval is None else approval.alone_items_max
        return Open(kind, command, uuid7(self._clock.now()), undoes, asked, selection, alone_items_max)

    async def preview(self, run: UUID, items_max: int = PREVIEWED_MAX) -> Preview:
        """Decides on the first items, and stores nothing."""
        state = await self._known(run)
        kind, command = self._kinds[state.kind], self._command(state)
        changed, unchanged, refused = 0, 0, dict[str, int]()
        items = await self._lists.items(run, state, 0, min(items_max, PREVIEWED_MAX))
        subjects = [item.subject for item in items]
        await kind.prepare(subjects)
        heads = {} if state.undoes is None else await self._store.stream_heads(subjects)
        for item in items:
            try:
                if state.undoes is not None:
                    _require_version(item, heads)
                    changed += 1
                elif await kind.previewed(item.subject, command):
                    changed += 1
                else:
                    unchanged += 1
            except Refusal as refusal:
                refused[refusal.code] = refused.get(refusal.code, 0) + 1
        return Preview(len(items), changed, unchanged, refused)

    # deciding

    async def contents(self, run: UUID) -> Contents:
        """What a run gives, and to which items, read from its list; raises BulkNotReady before that is complete."""
        state = await self._known(run)
        if state.status == "listing":
            raise BulkNotReady("it is listing")
        return Contents(
            run_id=run,
            gives=state.kind,
            command=_command_data(state),
            undoes=state.undoes,
            selection=state.selection,
            items=state.items,
            items_digest=await self._lists.digest(run, state),
        )

    async def prepared_by(self, run: UUID) -> tuple[str, str | None]:
        """Who prepared a run, and on whose behalf; raises BulkUnknown."""
        await self._known(run)
        [stored] = await self._store.read_stream(run, 0, 1)
        meta = self._catalogue.metadata_of(stored)
        return meta.actor, meta.on_behalf_of

    async def start(self, run: UUID, context: CommandContext) -> BulkShown:
        """Starts, or resumes after a pause. A second time changes nothing. Raises BulkNeedsApproval."""
        await self.begin(run, context)
        return await self.shown(run)

    async def resume(self, run: UUID, context: CommandContext) -> BulkShown:
        """Goes on after a pause; raises BulkNotReady where it was never started."""
        await self._handler.handle(run, Start(context.now, resumes=True), context, asked="resume")
        return await self.shown(run)

    async def begin(self, run: UUID, context: CommandContext) -> Outcome[BulkEvent]:
        """As `start`. With the approval that the context holds, it starts what takes two persons."""
        start = Start(context.now, approved=context.approved is not None)
        return await self._handler.handle(run, start, context, asked="start")

    async def pause(self, run: UUID, context: CommandContext) -> BulkShown:
        """Lets the items under way end, and begins no others."""
        await self._handler.handle(run, Pause(), context, asked="pause")
        return await self.shown(run)

    # doing

    async def run(self, run: UUID, chunks_max: int | None = None) -> Status:
        """Does the items until the run is finished or paused, or so many chunks of them; returns its status.

        Raises what is transient; called again, it goes on where it stopped. Any number of calls may run at once.
        """
        state = await self._known(run)
        started = await self._started(run, state) if state.status == "running" else None
        chunks = 0
        while started is not None and state.status == "running" and chunks != chunks_max:
            items = await self._lists.items(run, state, state.next, self._items_at_once)
            self._reached("before-chunk")
            results, refusals = await self._chunk(run, state, items, started)
            self._reached("before-advance")
            now = self._clock.now()
            context = CommandContext(
                actor=started.actor, now=now, command_id=uuid7(now), correlation_id=run, reason=started.reason
            )
            await self._handler.handle(run, Advance(state.next, results, refusals, now), context)
            # As of this append: a pause, or another runner, would have made it conflict and be decided anew.
            state = (await self._handler.load(run)).state
            chunks += 1
        if state.status == "paused":
            self._paused[run] = state.version
        return state.status

    async def started(self) -> list[UUID]:
        """The runs that were started and are not finished, but for those that were paused when this process looked at
        them, and were not resumed since."""
        runs = self._store.all_begun_not_ended("bulk-started", ["bulk-finished"], self._runs_read)
        found = [run async for run in runs]
        paused = {run: version for run in found if (version := self._paused.get(run)) is not None}
        heads = await self._store.stream_heads(list(paused)) if paused else {}
        self._paused = {run: version for run, version in paused.items() if heads.get(run) == version}
        return [run for run in found if run not in self._paused]

    async def _chunk(
        self, run: UUID, state: Run, items: Sequence[Item], started: Metadata
    ) -> tuple[tuple[int, ...], tuple[str, ...]]:
        kind, command = self._kinds[state.kind], self._command(state)
        await kind.prepare([item.subject for item in items])
        before: dict[UUID, int] = {}
        if state.active_at is None or self._clock.now() - state.active_at > SETTLED_KEPT:
            before = await self._done_before(run, items)
        doing = (self._item(run, state, item, kind, command, started, before) for item in items)
        found = list[int | str]()
        for one in await asyncio.gather(*doing, return_exceptions=True):
            if isinstance(one, BaseException):
                raise one
            found.append(one)
        codes = sorted({code for code in found if isinstance(code, str)})
        numbers = {code: -number for number, code in enumerate(codes, 1)}
        return tuple(numbers[one] if isinstance(one, str) else one for one in found), tuple(codes)

    async def _item(
        self,
        run: UUID,
        state: Run,
        item: Item,
        kind: Bulkable,
        command: Any,
        started: Metadata,
        before: Mapping[UUID, int],
    ) -> int | str:
        """The item's result: its version after the command, 0 where there was nothing to do, or why not."""
        if item.subject in before:
            return before[item.subject]
        now, proposal, proposed_by = self._clock.now(), started.proposal_id, started.proposed_by
        context = CommandContext(
            actor=started.actor,
            now=now,
            command_id=uuid5(run, str(item.subject)),
            post=started.post,
            on_behalf_of=started.on_behalf_of,
            reason=started.reason,
            privilege=started.privilege,
            correlation_id=run,
            causation_id=run,
            approved=None if proposal is None or proposed_by is None else Approved(proposal, proposed_by),
        )
        for _ in range(TRIES_MAX):
            try:
                if state.undoes is None:
                    outcome = await kind.carry_out(item.subject, command, context)
                else:
                    outcome = await self._undone(state.undoes, item, kind, command, context)
                return outcome.version if outcome.events else UNCHANGED
            except CommandKeyReused:
                pass
            except Refusal as refusal:
                if isinstance(refusal, Transient):
                    continue
                code = refusal.code
                if await self._settle(context, item.subject, code):
                    return code
            except Exception as error:
                if is_transient(error):
                    raise
                _log.exception("an item of a bulk run failed", run=str(run), subject=str(item.subject))
                if await self._settle(context, item.subject, ITEM_FAILED):
                    return ITEM_FAILED
            settled = await self._settled(run, item, context)
            if settled is not None:
                return settled
        return await self._given_up(context, item.subject)

    async def _settled(self, run: UUID, item: Item, context: CommandContext) -> int | str | None:
        """The result of an item that was settled before: refused, or done before a crash where it would be refused now."""
        settled = (await self._store.commands([context.key])).get(context.key)
        if settled is None:
            return None
        if settled.fingerprint.startswith(_REFUSED):
            return settled.fingerprint.removeprefix(_REFUSED).decode()
        return (await self._done_before(run, [item])).get(item.subject, UNCHANGED)

    async def _given_up(self, context: CommandContext, subject: UUID) -> str:
        """Settles an item that others changed in each of the tries; raises TooManyConflicts where another runner may
        have done it."""
        if not await self._settle(context, subject, TooManyConflicts.code):
            raise TooManyConflicts
        return TooManyConflicts.code

    async def _settle(self, context: CommandContext, subject: UUID, code: str) -> bool:
        """Remembers that the item was refused; false where it was settled otherwise, or the subject changed."""
        head = (await self._store.stream_heads([subject])).get(subject, 0)
        remembered = Command(context.key, _REFUSED + code.encode())
        result = await self._store.append_one(Append(subject, (), remembered, head))
        return isinstance(result, Appended) or (
            isinstance(result, CommandSeen) and result.fingerprint == remembered.fingerprint
        )

    async def _undone(
        self, undone: UUID, item: Item, kind: Bulkable, command: Any, context: CommandContext
    ) -> Outcome[Any]:
        if kind.undo is None:
            raise BulkNotFinished("it cannot be undone")
        before = await self._before(item, uuid5(undone, str(item.subject)))
        return await kind.undo(item.subject, command, before, item.version, context)

    async def _before(self, item: Item, command: UUID) -> int:
        """The version of a subject before a command, whose last event gave the version of the item. Read backwards: the
        stream may be of any length."""
        version = item.version
        while version:
            after = max(0, version - SUBJECT_EVENTS_READ)
            for one in reversed(await self._store.read_stream(item.subject, after, version - after)):
                if self._catalogue.metadata_of(one).command_id != command:
                    return one.version
            version = after
        return 0

    async def _done_before(self, run: UUID, items: Sequence[Item]) -> dict[UUID, int]:
        """The versions of those items whose events are stored, also where their commands are forgotten."""
        found: dict[UUID, int] = {}
        for subject, stored in (await self._store.read_streams([item.subject for item in items])).items():
            command = uuid5(run, str(subject))
            own = [one.version for one in stored if self._catalogue.metadata_of(one).command_id == command]
            if own:
                found[subject] = max(own)
        return found

    # reading

    async def shown(self, run: UUID) -> BulkShown:
        """A run as it is now; raises BulkUnknown."""
        self._handler.forget(run)
        loaded = await self._handler.load(run)
        state = loaded.state
        if state.status == "none":
            raise BulkUnknown
        return BulkShown(
            run_id=run,
            kind=state.kind,
            status=state.status,
            items=state.items,
            settled=state.next,
            done=state.done,
            unchanged=state.unchanged,
            refused=state.refused,
            undoes=state.undoes,
            command=_command_data(state),
            selection=state.selection,
            needs_approval=state.status == "ready" and state.needs_approval,
            position=loaded.position,
        )

    async def items(self, run: UUID, after: int = -1, limit: int = 100) -> list[UUID]:
        """The subjects of the items behind number `after`, in order; at most `limit`. Raises BulkUnknown."""
        listed = await self._lists.items(run, await self._known(run), after + 1, limit)
        return [item.subject for item in listed]

    async def results(self, run: UUID, after: int = -1, limit: int = 100) -> list[ItemResult]:
        """The results of the items behind number `after`, in order; at most `limit`."""
        found: list[ItemResult] = []
        async for number, item, result, code in self._results(run, await self._known(run), after + 1):
            said = code or ("done" if result > UNCHANGED else "unchanged")
            found.append(ItemResult(number, item.subject, said, result if result > UNCHANGED else None))
            if len(found) >= limit:
                break
        return found

    async def _results(
        self, run: UUID, state: Run, first: int
    ) -> AsyncIterator[tuple[int, Item, int, str | None]]:
        """Number, item, result and refusal of the items from `first` on, read event by event."""
        version = state.listed_from - 1 + lists_of(state)
        while page := await self._store.read_stream(run, version, RUN_EVENTS_READ):
            version = page[-1].version
            for stored in page:
                if stored.name != "bulk-advanced":
                    continue
                event = cast(BulkAdvanced, self._catalogue.open(stored, None).event)
                if event.first + len(event.results) <= first:
                    continue
                items = await self._lists.items(run, state, event.first, len(event.results))
                for number, (item, result) in enumerate(zip(items, event.results, strict=True), event.first):
                    if number >= first:
                        yield number, item, result, event.refusals[-result - 1] if result < 0 else None

    async def _started(self, run: UUID, state: Run) -> Metadata:
        """Who started the run, why, and on whose behalf."""
        [stored] = await self._store.read_stream(run, state.listed_from + lists_of(state), 1)
        return self._catalogue.metadata_of(stored)

    def _command(self, state: Run) -> Any:
        return msgspec.json.decode(state.command, type=self._kinds[state.kind].command)

    async def _known(self, run: UUID) -> Run:
        state = await self._state(run)
        if state.status == "none" or state.kind not in self._kinds:
            raise BulkUnknown
        return state

    async def _state(self, run: UUID) -> Run:
        self._handler.forget(run)
        return (await self._handler.load(run)).state


def _digest(asked: Any, context: CommandContext) -> str:
    """Distinguishes what was asked for, why and on whose behalf from something else under the same key."""
    said = msgspec.json.encode((asked, context.reason, context.on_behalf_of), order="deterministic")
    return blake2b(said, digest_size=16).hexdigest()


def _command_data(state: Run) -> dict[str, Any]:
    """The command of a run, as it is shown."""
    return msgspec.json.decode(state.command, type=dict[str, Any])


def _require_version(item: Item, heads: Mapping[UUID, int]) -> None:
    """Raises VersionMismatch where the subject of an undo was changed since."""
    if (head := heads.get(item.subject, 0)) != item.version:
        raise VersionMismatch(item.version, head)

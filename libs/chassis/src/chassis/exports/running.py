"""Takes requests for files of lists, makes the files, and gives them to who asked.

Each try has a file of its own, under a key of export and try. Which of them is the file of the export is decided in its
stream, on the version on which the event is stored; any other one is removed. What a crash leaves has an expiry, so the
sweep of files ends it.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any, Final, NamedTuple, cast
from uuid import UUID, uuid5

import msgspec
import structlog
from msgspec import structs

from chassis.clock import Clock, uuid7
from chassis.conditions.language import CONDITION
from chassis.connections.transient import Transient, is_transient, why
from chassis.exports.deciding import (
    ENDED,
    EXPORT,
    GIVEN_UP,
    RELEASED,
    ROWS_MAX,
    TRY_SECONDS_MAX,
    WAITS,
    Begin,
    Export,
    ExportBegun,
    ExportCommand,
    ExportEvent,
    ExportFailed,
    ExportListUnknown,
    ExportMade,
    ExportNotMade,
    ExportOutgrown,
    ExportOversized,
    ExportPutOff,
    ExportRequested,
    ExportRightsChanged,
    ExportUnknown,
    Fail,
    Finish,
    Interrupt,
    Language,
    PutOff,
    Release,
    Request,
    Status,
    TooManyExports,
    require_waiting,
)
from chassis.exports.declaring import Column, Exportable
from chassis.exports.rows import BEGIN, Cell, row
from chassis.files import Content, FileKeeper, Kept, Limits, Offered, Storage
from chassis.files.checking import SIZE_BYTES_MAX
from chassis.lists import FieldNotPermitted, QueryTooSlow, Question, question
from chassis.observability import metrics
from chassis.privacy.keys import KeyRing
from chassis.privacy.tokens import Caller
from chassis.read.documents import ID
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import AlreadyRecorded, CommandContext, Outcome, Refusal
from chassis.write.events import Metadata
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore

_NAMESPACE: Final = UUID("7c2b1d0a-3a55-5f0c-9d43-5b8f2c6e1a90")
ASKED_PER_DAY_MAX: Final = 20
"""Files that a person may ask for in a day (UTC)."""
LISTED_DAYS: Final = WAITS.days
"""A person's exports of so many days are listed: as long as one may be released, and longer than a file is kept."""
RUNS_READ: Final = 100
AGED_AT_ONCE: Final = 100
"""Exports that are read for one measuring. Of the others it is known already when they were released, or the next one
reads it."""
INTERRUPT_SECONDS_MAX: Final = 3.0
ROWS_AT_ONCE: Final = 200
"""Rows that are written before the loop has another turn: 5 ms for facts of customers, on one core."""
MEDIA_TYPE: Final = "text/csv"
PURPOSE: Final = "export"

_log = structlog.get_logger(__name__)


class Asked(msgspec.Struct, frozen=True):
    """What a file is asked for: a list by name, a condition and an order as its page takes them, and columns; without any,
    all that the caller may see."""

    listing: str
    where: str | None = None
    sort: str | None = None
    as_of: date | None = None
    columns: tuple[str, ...] = ()
    language: Language = "zh"


class ExportContents(msgspec.Struct, frozen=True):
    """What an export has, as it is proposed and approved. `selection` is the condition in words, with its day."""

    export_id: UUID
    listing: str
    selection: str
    sort: str | None
    as_of: date
    columns: tuple[str, ...]
    asked_by: str
    rows_counted: int
    rows_max: int
    on_behalf_of: str | None = None


class ExportShown(msgspec.Struct, frozen=True):
    """An export as it is now."""

    contents: ExportContents
    status: Status
    language: Language
    needs_approval: bool
    asked_at: datetime
    attempts: int
    made: ExportMade | None
    failed_code: str | None
    failed_reason: str | None
    position: int


class _Written:
    """What a try has written so far."""

    def __init__(self, read_at: datetime) -> None:
        self.read_at = read_at
        self.rows = 0
        self.hash = sha256()
        self.seen: set[str] = set()


class _Try(NamedTuple):
    """A try of an export."""

    export: UUID
    number: int
    requested: ExportRequested
    started: Metadata


class Exports:
    """The exports of one context; use it from one event loop.

    `kinds` are the lists of which files are made, by a name that never changes. `storage` is None in a process that makes and
    gives no file. `reached` is called at the points `before-file` and `after-file` of a try.
    """

    def __init__(
        self,
        store: EventStore,
        catalogue: Catalogue,
        keys: KeyRing,
        kinds: Mapping[str, Exportable],
        clock: Clock,
        storage: Storage | None = None,
        *,
        bytes_max: int = SIZE_BYTES_MAX,
        try_seconds_max: float = TRY_SECONDS_MAX,
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._catalogue = catalogue
        self._kinds = dict(kinds)
        self._clock = clock
        self._try_seconds_max = try_seconds_max
        self._reached = reached
        self._released: dict[UUID, datetime | None] = {}
        """When the exports were released that were due at the last measuring."""
        self._handler = CommandHandler[ExportCommand, Export, ExportEvent](EXPORT, store, catalogue, keys)
        limits = Limits(frozenset({MEDIA_TYPE}), bytes_max)
        self._files: FileKeeper | None = None
        if storage is not None:
            self._files = FileKeeper(store, catalogue, keys, storage, limits)

    @property
    def kinds(self) -> Mapping[str, Exportable]:
        """The lists of which files are made, by name."""
        return self._kinds

    # asking

    async def request(self, asked: Asked, caller: Caller, context: CommandContext) -> ExportShown:
        """Asks for a file; the same key gives the same export. Nothing is stored where it is refused.

        Raises ExportListUnknown, ConditionInvalid, SortInvalid, FieldNotPermitted, QueryTooSlow, ExportOversized,
        TooManyExports, CommandKeyReused, what the list refuses the caller, and ExportNotWaiting where the key is older than
        the commands that are kept.
        """
        kind = self._kind(asked.listing)
        rights = kind.rights(caller)
        found = question(kind.listing, rights.may, asked.where, asked.sort, asked.as_of)
        columns = _columns(kind, asked.columns, rights.may)
        export = uuid5(_NAMESPACE, f"{self._catalogue.store}|{context.key}")
        if context.key in await self._store.commands([context.key]):
            counted = 0  # what was counted the first time stands
        else:
            counts = await kind.counted(rights.scope, found, ROWS_MAX)
            if counts.more:
                raise ExportOversized(f"at most {ROWS_MAX}")
            counted = counts.count
        requested = ExportRequested(
            listing=asked.listing,
            where=None if found.condition is None else CONDITION.dump_json(found.condition).decode(),
            sort=asked.sort,
            as_of=found.as_of or kind.today(),
            columns=tuple(each.name for each in columns),
            language=asked.language,
            asked_by=caller.subject,
            post=caller.post,
            on_behalf_of=caller.on_behalf_of,
            roles=tuple(sorted(caller.roles)),
            counted=counted,
            alone_rows_max=kind.alone_rows_max,
            rows_max=_rows_max(counted, kind.alone_rows_max),
            slot=export,
            at=context.now,
        )
        await self._asked(export, requested, context, asked)
        return await self._shown(export)

    async def contents(self, export: UUID) -> ExportContents:
        """What an export has; raises ExportUnknown."""
        return _contents(export, self._requested(await self._state(export)))

    async def require_waiting(self, export: UUID) -> None:
        """Raises ExportUnknown, or ExportNotWaiting where it waits for no approval, or has waited too long."""
        require_waiting(await self._state(export), self._clock.now())

    async def release(self, export: UUID, context: CommandContext) -> Outcome[ExportEvent]:
        """With the approval that the context holds, the file is made from now on."""
        command = Release(context.now, context.approved is not None)
        return await self._handler.handle(export, command, context, asked="release")

    # making

    async def due(self) -> list[UUID]:
        """The exports of which a file is to be made."""
        return [each async for each in self._store.all_begun_not_ended(RELEASED, ENDED, RUNS_READ)]

    async def age_seconds(self) -> float:
        """How long ago the oldest export was released whose file is not made yet; 0 where there is none."""
        due = await self.due()
        unread = [export for export in due if export not in self._released][:AGED_AT_ONCE]
        states = zip(unread, await asyncio.gather(*map(self._state, unread)), strict=True)
        known = self._released | {export: state.released_at for export, state in states}
        self._released = {export: known[export] for export in due if export in known}
        released = [at for at in self._released.values() if at is not None]
        return max(0.0, (self._clock.now() - min(released)).total_seconds()) if released else 0.0

    async def measure(self) -> None:
        """Sets the gauge of the oldest; for the `measures` of an application."""
        age_seconds = await self.age_seconds()
        metrics.EXPORTS_AGE_SECONDS.labels(self._catalogue.store).set(age_seconds)

    async def make(self, export: UUID) -> Status:
        """Begins a try where one is due, and makes the file; the status of the export after it.

        Any number of calls may run at once, in any number of processes: one of them begins. Raises what is transient of the
        store, where it cannot be stored what became of the try.
        """
        now = self._clock.now()
        state = await self._state(export)
        if state.status != "released" or (state.free_at is not None and now < state.free_at):
            return state.status
        requested, started = self._requested(state), await self._first(export)
        if requested.listing not in self._kinds:
            return state.status  # a list that another version of this service has
        given = self._given(export, started)
        begun = await self._handler.handle(export, Begin(now), given)
        self._count(begun)
        numbers = [event.attempt for event in begun.events if isinstance(event, ExportBegun)]
        if numbers:
            one = _Try(export, numbers[0], requested, started)
            try:
                await self._try(one)
            except asyncio.CancelledError:
                await self._interrupted(one)
                raise
        await self._tidy(export, started)
        return (await self._state(export)).status

    async def _try(self, one: _Try) -> None:
        """Makes the file, and stores what became of it."""
        export, number = one.export, one.number
        try:
            async with asyncio.timeout(self._try_seconds_max):
                written = _Written(self._clock.now())
                kept = await self._written(one, written)
        except Exception as error:  # noqa: BLE001 (it is stored, and tried again or refused)
            ended = self._ended(one, error)
            self._count(await self._handler.handle(export, ended, self._given(export, one.started)))
            return
        made = ExportMade(
            attempt=number,
            file=kept.shown.file_id,
            rows=written.rows,
            size_bytes=kept.shown.size_bytes,
            sha256=written.hash.hexdigest(),
            read_at=written.read_at,
            expires_at=cast(datetime, kept.shown.expires_at),
        )
        self._count(await self._handler.handle(export, Finish(made), self._given(export, one.started)))

    async def _interrupted(self, one: _Try) -> None:
        """Lets another process begin at once; where that cannot be stored in time, one begins when the claim is over."""
        interrupt = Interrupt(one.number, self._clock.now())
        try:
            async with asyncio.timeout(INTERRUPT_SECONDS_MAX):
                await self._handler.handle(one.export, interrupt, self._given(one.export, one.started))
        except Exception as error:  # noqa: BLE001 (the process ends)
            _log.warning("an export waits for its claim to end", export=str(one.export), reason=why(error))

    def _count(self, outcome: Outcome[ExportEvent]) -> None:
        for event in outcome.events:
            match event:
                case ExportMade():
                    said = "made"
                case ExportPutOff():
                    said = "put-off"
                case ExportFailed(code):
                    said = "given-up" if code == GIVEN_UP else "refused"
                case _:
                    continue
            metrics.EXPORTS.labels(self._catalogue.store, said).inc()

    def _ended(self, one: _Try, error: Exception) -> ExportCommand:
        """What a try without a file comes to: refused for good, or put off.

        Whoever asked is shown the class of an error alone: the text of a driver names servers, databases and logins.
        """
        now = self._clock.now()
        slow = error.code if isinstance(error, QueryTooSlow) else None
        if slow is None and isinstance(error, Refusal) and not isinstance(error, Transient):
            return Fail(one.number, error.code, str(error), now)
        if slow is not None or is_transient(error):
            reason = slow or why(error)
            _log.warning("an export is put off", export=str(one.export), attempt=one.number, reason=reason)
        else:
            _log.error("an export broke", export=str(one.export), attempt=one.number, exc_info=error)
        return PutOff(one.number, slow or type(error).__name__, now)

    async def _written(self, one: _Try, written: _Written) -> Kept:
        requested, kind = one.requested, self._kind(one.requested.listing)
        expires_at = written.read_at + kind.file_lives
        name = f"{requested.listing}-{requested.as_of}.csv"
        given = self._given(one.export, one.started, f"file-{one.number}")
        self._reached("before-file")
        content = self._content(one, kind, written)
        kept = await self._keeper().attach(
            one.export, Offered(name, MEDIA_TYPE, PURPOSE, expires_at), content, given
        )
        self._reached("after-file")
        return kept

    async def _content(self, one: _Try, kind: Exportable, written: _Written) -> AsyncIterator[bytes]:
        """The file, part by part. The rights are those of now: of the rules and of the rows."""

        def part(content: bytes) -> bytes:
            written.hash.update(content)
            return content

        requested = one.requested
        rights = kind.rights(_asker(requested))
        asked = question(kind.listing, rights.may, requested.where, requested.sort, requested.as_of)
        columns = _columns(kind, requested.columns, rights.may)
        labels = [getattr(label, requested.language) for each in columns for label in each.labels]
        yield part(BEGIN + row(labels))
        async for found in kind.documents(rights.scope, asked):
            # A row whose value of the order changes meanwhile comes again.
            fresh = [each for each in found if each[ID] not in written.seen]
            written.seen.update(each[ID] for each in fresh)
            written.rows += len(fresh)
            if written.rows > requested.rows_max:
                raise ExportOutgrown(f"at most {requested.rows_max} rows")
            for at in range(0, len(fresh), ROWS_AT_ONCE):
                shown = await kind.shown(fresh[at : at + ROWS_AT_ONCE])
                yield part(b"".join([row(_cells(columns, each)) for each in shown]))
                await asyncio.sleep(0)  # requests wait for the same loop
        said = (
            f"# rows: {written.rows}; as of: {requested.as_of}; read at: {written.read_at.isoformat()};"
            f" asked by: {requested.asked_by}; export: {one.export}"
        )
        yield part(row([said, *[None] * (len(labels) - 1)]))

    async def _tidy(self, export: UUID, started: Metadata) -> None:
        """Removes files of tries that are not the file of the export, where it has ended."""
        state = await self._state(export)
        if state.status not in {"made", "failed"}:
            return
        keeper = self._keeper()
        of_export = None if state.made is None else state.made.file
        for file in (await keeper.state_of(keeper.stream_of(export))).kept:
            if file != of_export:
                await keeper.remove(export, file, self._given(export, started))

    # reading

    async def shown(self, export: UUID, caller: Caller) -> ExportShown:
        """An export of the caller as it is now; raises ExportUnknown."""
        shown = await self._shown(export)
        if shown.contents.asked_by != caller.subject:
            raise ExportUnknown
        return shown

    async def of(self, caller: Caller, now: datetime) -> list[ExportShown]:
        """The exports that the caller has asked for in the last days, the latest first."""
        slots = [
            slot
            for days in range(LISTED_DAYS)
            for slot in self._slots(caller.subject, now - timedelta(days=days))
        ]
        stored = await self._store.read_identities(slots)
        newest = sorted(stored, key=lambda one: one.position or 0, reverse=True)
        return await asyncio.gather(*[self._shown(one.stream_id) for one in newest])

    async def read(self, export: UUID, caller: Caller, context: CommandContext) -> Content:
        """The file, for who asked for it and has the same rights still; each reading is an event.

        Raises ExportUnknown, ExportNotMade, ExportRightsChanged, FileGone, FileUnreadable, StorageUnavailable.
        """
        state = await self._state(export)
        requested = self._requested(state)
        if requested.asked_by != caller.subject or requested.listing not in self._kinds:
            raise ExportUnknown
        kind = self._kind(requested.listing)
        then, now = kind.rights(_asker(requested)), kind.rights(caller)
        if state.made is None:
            raise ExportNotMade(f"it is {state.status}")
        narrower = not now.scope.everything and now.scope.named() != then.scope.named()
        if narrower or not then.may <= now.may:
            raise ExportRightsChanged
        return await self._keeper().read(export, state.made.file, context)

    # parts

    async def _asked(
        self, export: UUID, requested: ExportRequested, context: CommandContext, asked: Asked
    ) -> None:
        slots = self._slots(requested.asked_by, context.now)
        taken = await self._store.known_identities(slots)
        for slot in [each for each in slots if each not in taken] or slots[-1:]:
            with suppress(AlreadyRecorded):
                command = Request(structs.replace(requested, slot=slot))
                await self._handler.handle(export, command, context, asked=asked)
                return
        raise TooManyExports(f"at most {ASKED_PER_DAY_MAX}")

    def _slots(self, person: str, at: datetime) -> list[UUID]:
        day = f"{self._catalogue.store}|{person}|{at.astimezone(UTC).date()}"
        return [uuid5(_NAMESPACE, f"{day}|{number}") for number in range(ASKED_PER_DAY_MAX)]

    async def _shown(self, export: UUID) -> ExportShown:
        self._handler.forget(export)
        loaded = await self._handler.load(export)
        state, requested = loaded.state, self._requested(loaded.state)
        failed = state.failed
        return ExportShown(
            contents=_contents(export, requested),
            status=state.status,
            language=requested.language,
            needs_approval=state.status == "waiting",
            asked_at=requested.at,
            attempts=state.attempt,
            made=state.made,
            failed_code=None if failed is None else failed.code,
            failed_reason=None if failed is None else failed.reason,
            position=loaded.position,
        )

    async def _state(self, export: UUID) -> Export:
        self._handler.forget(export)
        return (await self._handler.load(export)).state

    async def _first(self, export: UUID) -> Metadata:
        """Who asked for the export, and why."""
        [stored] = await self._store.read_stream(export, 0, 1)
        return self._catalogue.metadata_of(stored)

    def _given(self, export: UUID, started: Metadata, step: str | None = None) -> CommandContext:
        """What is done for who asked. `step` has one id for ever; without one the id is new."""
        now = self._clock.now()
        return CommandContext(
            actor=started.actor,
            now=now,
            command_id=uuid7(now) if step is None else uuid5(export, step),
            post=started.post,
            on_behalf_of=started.on_behalf_of,
            reason=started.reason,
            privilege="high",
            correlation_id=export,
            causation_id=export,
        )

    def _requested(self, state: Export) -> ExportRequested:
        if state.requested is None:
            raise ExportUnknown
        return state.requested

    def _kind(self, listing: str) -> Exportable:
        if listing not in self._kinds:
            raise ExportListUnknown(f"one of {', '.join(sorted(self._kinds))}")
        return self._kinds[listing]

    def _keeper(self) -> FileKeeper:
        if self._files is None:
            raise TypeError("this process has no storage of files")
        return self._files


def _columns(kind: Exportable, names: Collection[str], may: frozenset[str]) -> list[Column]:
    """The columns of these names, in the order of the list; of none, all that the caller may see."""
    known = {each.name: each for each in kind.columns}
    if unknown := sorted(set(names) - known.keys()):
        raise ExportListUnknown(f"{', '.join(unknown)} is none of {', '.join(known)}")
    wanted = [each for each in kind.columns if not names or each.name in names]
    permitted = [each for each in wanted if each.permission is None or each.permission in may]
    if names and len(permitted) < len(wanted):
        raise FieldNotPermitted
    return permitted


def _cells(columns: Sequence[Column], shown: Mapping[str, Any]) -> list[Cell]:
    return [cell for each in columns for cell in each.cells(shown)]


def _rows_max(counted: int, alone_rows_max: int) -> int:
    """A tenth more than who approves has seen; what one person may ask for alone stays so."""
    return alone_rows_max if counted <= alone_rows_max else min(ROWS_MAX, counted + counted // 10)


def _asker(requested: ExportRequested) -> Caller:
    roles = frozenset(requested.roles)
    return Caller(requested.asked_by, requested.post, roles, requested.on_behalf_of)


def _contents(export: UUID, requested: ExportRequested) -> ExportContents:
    condition = None if requested.where is None else CONDITION.validate_json(requested.where)
    return ExportContents(
        export_id=export,
        listing=requested.listing,
        selection=replace(Question(condition), as_of=requested.as_of).worded(),
        sort=requested.sort,
        as_of=requested.as_of,
        columns=requested.columns,
        asked_by=requested.asked_by,
        rows_counted=requested.counted,
        rows_max=requested.rows_max,
        on_behalf_of=requested.on_behalf_of,
    )

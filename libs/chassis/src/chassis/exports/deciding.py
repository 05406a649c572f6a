"""An export: what a file of a list is asked for, by whom, who released it, and what became of it. Pure; no I/O.

Its events are not published. The store is the audit log.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import ClassVar, Final, Literal, assert_never
from uuid import UUID

import msgspec
from msgspec import structs

from chassis.write.deciding import Decider, Refusal
from chassis.write.events import Event

ROWS_MAX: Final = 50_000
WAITS: Final = timedelta(days=14)
"""For so long an export that takes two persons may be released: its rights and its count are those of when it was asked for."""
TRIES_MAX: Final = 5
TRY_SECONDS_MAX: Final = 120.0
CLAIM: Final = timedelta(seconds=2 * TRY_SECONDS_MAX)
"""From the begin of a try on, no other process begins one: longer than a try lasts."""
INTERRUPTED_MAX: Final = 10
"""So many tries do not count because their process was told to end; any other one counts."""
PAUSE: Final = timedelta(seconds=10)
"""After the first try that was put off; twice as long after each other one."""

Status = Literal["none", "waiting", "released", "made", "failed"]
Language = Literal["zh", "en"]


class ExportRequested(Event, frozen=True):
    """Somebody asks for a file of what a list finds. `slot` is one of those that a person has in a day.

    `where` is the condition as JSON; days are counted from `as_of`. `columns` are all that the file has. `roles`, `post` and
    `on_behalf_of` are those of the token. `counted`: rows when it was asked for. With more of them than `alone_rows_max`,
    another person approves. The file has at most `rows_max`.
    """

    listing: str
    where: str | None
    sort: str | None
    as_of: date
    columns: tuple[str, ...]
    language: Language
    asked_by: str
    post: str | None
    on_behalf_of: str | None
    roles: tuple[str, ...]
    counted: int
    alone_rows_max: int
    rows_max: int
    slot: UUID
    at: datetime

    @property
    def needs_approval(self) -> bool:
        """Whether it takes two persons."""
        return self.counted > self.alone_rows_max


class ExportReleased(Event, frozen=True):
    """From now on the file is made."""

    at: datetime


class ExportBegun(Event, frozen=True):
    """A process makes the file, as the try of this number, counted from 1."""

    attempt: int
    at: datetime


class ExportPutOff(Event, frozen=True):
    """A try came to nothing, and another one follows."""

    attempt: int
    reason: str
    at: datetime


class ExportInterrupted(Event, frozen=True):
    """The process of a try was told to end. Another one begins at once."""

    attempt: int
    at: datetime


class ExportMade(Event, frozen=True):
    """The file is kept, under the key of this export. `sha256` names its content, for who finds a copy.

    `read_at`: when its rows were begun to be read.
    """

    attempt: int
    file: UUID
    rows: int
    size_bytes: int
    sha256: str
    read_at: datetime
    expires_at: datetime


class ExportFailed(Event, frozen=True):
    """There will be no file: `code` of the refusal, and why."""

    code: str
    reason: str
    at: datetime


ExportEvent = (
    ExportRequested
    | ExportReleased
    | ExportBegun
    | ExportPutOff
    | ExportInterrupted
    | ExportMade
    | ExportFailed
)

GIVEN_UP: Final = "export-given-up"
"""The code of an export whose last try came to nothing."""
RELEASED: Final = "export-released"
ENDED: Final = ("export-made", "export-failed")
EXPORTS: Final[dict[str, type[Event]]] = {
    "export-requested": ExportRequested,
    RELEASED: ExportReleased,
    "export-begun": ExportBegun,
    "export-put-off": ExportPutOff,
    "export-interrupted": ExportInterrupted,
    "export-made": ExportMade,
    "export-failed": ExportFailed,
}
"""Their stored names, for the catalogue of a context."""


class Request(msgspec.Struct, frozen=True):
    """Asks for a file. What one person may ask for alone is released at once."""

    requested: ExportRequested


class Release(msgspec.Struct, frozen=True):
    """Two persons have decided that the file is made."""

    at: datetime
    approved: bool


class Begin(msgspec.Struct, frozen=True):
    """Begins a try; nothing where it is not due."""

    at: datetime


class PutOff(msgspec.Struct, frozen=True):
    """A try came to nothing. The last one fails the export."""

    attempt: int
    reason: str
    at: datetime


class Interrupt(msgspec.Struct, frozen=True):
    """The process of a try ends; nothing where the try has ended, or another one was begun since."""

    attempt: int
    at: datetime


class Finish(msgspec.Struct, frozen=True):
    """A try has made the file; nothing where another try was begun since."""

    made: ExportMade


class Fail(msgspec.Struct, frozen=True):
    """A try was refused; nothing where another try was begun since."""

    attempt: int
    code: str
    reason: str
    at: datetime


ExportCommand = Request | Release | Begin | PutOff | Interrupt | Finish | Fail


class Export(msgspec.Struct, frozen=True):
    """The state of an export. `free_at`: when the next try may begin. `trying`: whether one was begun and has not ended.
    `interrupted`: tries that do not count."""

    status: Status = "none"
    requested: ExportRequested | None = None
    released_at: datetime | None = None
    attempt: int = 0
    trying: bool = False
    interrupted: int = 0
    free_at: datetime | None = None
    made: ExportMade | None = None
    failed: ExportFailed | None = None

    @property
    def tries(self) -> int:
        """The tries that count."""
        return self.attempt - self.interrupted


class ExportUnknown(Refusal):
    """There is no export of that id, or it is another person's."""

    code: ClassVar[str] = "export-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such export"
    title_zh: ClassVar[str] = "没有该导出"


class ExportNotWaiting(Refusal):
    """The export does not wait for an approval; the text names its status."""

    code: ClassVar[str] = "export-not-waiting"
    title: ClassVar[str] = "The export does not wait for an approval"
    title_zh: ClassVar[str] = "该导出不在待批准状态"


class ExportNeedsApproval(Refusal):
    """Another person must approve the export."""

    code: ClassVar[str] = "export-needs-approval"
    title: ClassVar[str] = "Another person must approve the export"
    title_zh: ClassVar[str] = "该导出须经另一人员批准"


class ExportNotMade(Refusal):
    """There is no file of it yet, or there will be none; the text names its status."""

    code: ClassVar[str] = "export-not-made"
    title: ClassVar[str] = "The export has no file"
    title_zh: ClassVar[str] = "该导出尚无文件"


class ExportNotPermitted(Refusal):
    """The caller may not see the list."""

    code: ClassVar[str] = "export-not-permitted"
    status: ClassVar[int] = 403
    title: ClassVar[str] = "You may not export this list"
    title_zh: ClassVar[str] = "您无权导出该列表"


class ExportRightsChanged(Refusal):
    """Who asked may see less by now than the file has."""

    code: ClassVar[str] = "export-rights-changed"
    status: ClassVar[int] = 403
    title: ClassVar[str] = "You may see less by now than the file has"
    title_zh: ClassVar[str] = "您当前的权限小于该文件的数据范围"


class ExportOversized(Refusal):
    """More rows than a file may have."""

    code: ClassVar[str] = "export-oversized"
    status: ClassVar[int] = 413
    title: ClassVar[str] = "The list has more rows than a file may have"
    title_zh: ClassVar[str] = "列表行数超过导出上限"


class ExportOutgrown(Refusal):
    """The list has more rows by now than were asked for, or approved."""

    code: ClassVar[str] = "export-outgrown"
    title: ClassVar[str] = "The list has grown beyond what was asked for"
    title_zh: ClassVar[str] = "列表行数已超过申请范围"


class ExportDiffers(Refusal):
    """The export is not the one that was proposed."""

    code: ClassVar[str] = "export-differs"
    title: ClassVar[str] = "The export is not the one that was proposed"
    title_zh: ClassVar[str] = "该导出与提议内容不一致"


class TooManyExports(Refusal):
    """The person has asked for as many files as one may ask for in a day."""

    code: ClassVar[str] = "too-many-exports"
    title: ClassVar[str] = "You have asked for as many files as you may in a day"
    title_zh: ClassVar[str] = "当日导出次数已达上限"


class ExportListUnknown(Refusal):
    """No file is made of a list of that name, or it has no such column; the text names those that there are."""

    code: ClassVar[str] = "export-list-unknown"
    status: ClassVar[int] = 422
    title: ClassVar[str] = "There is no such list or column to export"
    title_zh: ClassVar[str] = "没有可导出的该列表或列"


def require_waiting(export: Export, at: datetime) -> ExportRequested:
    """What was asked for; raises ExportUnknown, or ExportNotWaiting where it waits for no approval, or has waited too long."""
    if export.requested is None:
        raise ExportUnknown
    if export.status != "waiting":
        raise ExportNotWaiting(f"it is {export.status}")
    if at >= export.requested.at + WAITS:
        raise ExportNotWaiting(f"it was asked for more than {WAITS.days} days ago")
    return export.requested


def decide(command: ExportCommand, export: Export) -> Sequence[ExportEvent]:  # noqa: PLR0911 (one arm per command)
    """The events of a command; raises the refusals above."""
    match command:
        case Request(requested):
            if export.status != "none":
                raise ExportNotWaiting(f"it is {export.status}")
            return [requested] if requested.needs_approval else [requested, ExportReleased(requested.at)]
        case Release(at, approved):
            requested = require_waiting(export, at)
            if not approved:
                raise ExportNeedsApproval(f"it has {requested.counted} rows")
            return [ExportReleased(at)]
        case Begin(at):
            return _begun(export, at)
        case PutOff(attempt, reason, at):
            if not _is_at(export, attempt):
                return []
            return [_given_up(reason, at) if export.tries >= TRIES_MAX else ExportPutOff(attempt, reason, at)]
        case Interrupt(attempt, at):
            return [ExportInterrupted(attempt, at)] if _is_at(export, attempt) else []
        case Finish(made):
            return [made] if _is_at(export, made.attempt) else []
        case Fail(attempt, code, reason, at):
            return [ExportFailed(code, reason, at)] if _is_at(export, attempt) else []
        case _:
            assert_never(command)


def _begun(export: Export, at: datetime) -> Sequence[ExportEvent]:
    if export.status != "released" or (export.free_at is not None and at < export.free_at):
        return []
    if export.tries >= TRIES_MAX:
        return [_given_up("the last try did not end", at)]
    return [ExportBegun(export.attempt + 1, at)]


def _is_at(export: Export, attempt: int) -> bool:
    return export.status == "released" and export.trying and export.attempt == attempt


def _given_up(reason: str, at: datetime) -> ExportFailed:
    return ExportFailed(GIVEN_UP, reason, at)


def evolve(export: Export, event: ExportEvent) -> Export:  # noqa: PLR0911 (one arm per event)
    """The export after an event."""
    replaced = structs.replace
    match event:
        case ExportRequested():
            return Export("waiting", event)
        case ExportReleased(at):
            return replaced(export, status="released", released_at=at)
        case ExportBegun(attempt, at):
            return replaced(export, attempt=attempt, trying=True, free_at=at + CLAIM)
        case ExportPutOff(at=at):
            return replaced(export, trying=False, free_at=at + PAUSE * 2 ** (export.tries - 1))
        case ExportInterrupted(at=at):
            interrupted = min(export.interrupted + 1, INTERRUPTED_MAX)
            return replaced(export, trying=False, free_at=at, interrupted=interrupted)
        case ExportMade():
            return replaced(export, status="made", made=event, trying=False)
        case ExportFailed():
            return replaced(export, status="failed", failed=event, trying=False)
        case _:
            assert_never(event)


def _slot(event: ExportEvent) -> UUID | None:
    return event.slot if isinstance(event, ExportRequested) else None


EXPORT: Final = Decider[ExportCommand, Export, ExportEvent](
    initial=Export(), decide=decide, evolve=evolve, events=ExportEvent, identify=_slot
)

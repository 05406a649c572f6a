"""A bulk run: what is to be done, to which items in which order, and what became of each. Pure; no I/O.

Its events are not published. The events of the items are.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Final, Literal, assert_never
from uuid import UUID

import msgspec
from msgspec import structs

from chassis.write.deciding import Decider, Refusal
from chassis.write.events import Event

ITEMS_MAX: Final = 1_000_000
LISTED_PER_EVENT: Final = 2_000
"""Ids of 39 bytes and versions of up to 8: an event may have 512 KiB."""
RESULTS_PER_EVENT_MAX: Final = 1_000

Status = Literal["none", "listing", "ready", "running", "paused", "finished"]
UNCHANGED: Final = 0
"""The result of an item that had nothing to do. More than 0 is the item's version after its command; less than 0 is
minus the number of a refusal, counted from 1 in the `refusals` of the event."""


class BulkOpened(Event, frozen=True):
    """A list begins. A list that was not completed is begun anew by the next of these; `listing` names the one.

    `asked`: a digest of what was asked for, in runs that have one. `selection`: in words, the condition that gave the
    list, and as of which day. `alone_items_max`: with more items than this, another person approves the start; None
    is no limit.
    """

    kind: str
    command: str
    listing: UUID
    undoes: UUID | None = None
    asked: str = ""
    selection: str = ""
    alone_items_max: int | None = None


class BulkListed(Event, frozen=True):
    """The next items. `versions`: of an undo, the version that each item must still have."""

    subjects: tuple[UUID, ...]
    versions: tuple[int, ...] = ()


class BulkReady(Event, frozen=True):
    """The list is complete."""

    items: int


class BulkStarted(Event, frozen=True):
    """From now on items are done; `at` is when. `resumed`: after a pause."""

    at: datetime
    resumed: bool = False


class BulkPaused(Event, frozen=True):
    """No further items are done until it is resumed. Those under way are finished."""


class BulkAdvanced(Event, frozen=True):
    """What became of the items from number `first` on, counted from 0."""

    first: int
    results: tuple[int, ...]
    refusals: tuple[str, ...]
    at: datetime


class BulkFinished(Event, frozen=True):
    """Every item has a result."""

    done: int
    unchanged: int
    refused: int


BulkEvent = BulkOpened | BulkListed | BulkReady | BulkStarted | BulkPaused | BulkAdvanced | BulkFinished

BULK_RUNS: Final[dict[str, type[Event]]] = {
    "bulk-opened": BulkOpened,
    "bulk-listed": BulkListed,
    "bulk-ready": BulkReady,
    "bulk-started": BulkStarted,
    "bulk-paused": BulkPaused,
    "bulk-advanced": BulkAdvanced,
    "bulk-finished": BulkFinished,
}
"""Their stored names, for the catalogue of a context."""


class Open(msgspec.Struct, frozen=True):
    """Begins a list, or begins it anew. Who began the one before cannot go on with it."""

    kind: str
    command: str
    listing: UUID
    undoes: UUID | None = None
    asked: str = ""
    selection: str = ""
    alone_items_max: int | None = None


class List(msgspec.Struct, frozen=True):
    """Lists the items from number `first` on."""

    listing: UUID
    first: int
    subjects: tuple[UUID, ...]
    versions: tuple[int, ...] = ()


class Complete(msgspec.Struct, frozen=True):
    """Ends the list."""

    listing: UUID


class Start(msgspec.Struct, frozen=True):
    """Starts, or resumes after a pause. `approved`: two persons have decided that it starts. `resumes`: only what was started
    before."""

    at: datetime
    approved: bool = False
    resumes: bool = False


class Pause(msgspec.Struct, frozen=True):
    """Pauses."""


class Advance(msgspec.Struct, frozen=True):
    """States results. Nothing where another runner stated them before."""

    first: int
    results: tuple[int, ...]
    refusals: tuple[str, ...]
    at: datetime


BulkCommand = Open | List | Complete | Start | Pause | Advance


class Run(msgspec.Struct, frozen=True):
    """The state of a run. `version` counts its events; `listed_from` is the version of its first list.

    `next` is the number of the first item without a result. `active_at` is when a runner last began or stated results.
    """

    status: Status = "none"
    kind: str = ""
    command: str = ""
    listing: UUID | None = None
    undoes: UUID | None = None
    asked: str = ""
    selection: str = ""
    alone_items_max: int | None = None
    version: int = 0
    listed_from: int = 0
    items: int = 0
    next: int = 0
    done: int = 0
    unchanged: int = 0
    refused: int = 0
    active_at: datetime | None = None

    @property
    def needs_approval(self) -> bool:
        """Whether it takes two persons to start it."""
        return self.alone_items_max is not None and self.items > self.alone_items_max


class BulkUnknown(Refusal):
    """There is no bulk run of that id."""

    code: ClassVar[str] = "bulk-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such bulk run"
    title_zh: ClassVar[str] = "没有该批量任务"


class BulkNotReady(Refusal):
    """The run cannot take this step now; the text names its status."""

    code: ClassVar[str] = "bulk-not-ready"
    title: ClassVar[str] = "The bulk run cannot take this step now"
    title_zh: ClassVar[str] = "该批量任务当前不能执行此操作"


class BulkNeedsApproval(Refusal):
    """The start of the run must be proposed, and approved by another person."""

    code: ClassVar[str] = "bulk-needs-approval"
    title: ClassVar[str] = "Another person must approve the start of the bulk run"
    title_zh: ClassVar[str] = "启动该批量任务须经另一人员复核"


class BulkNotFinished(Refusal):
    """Only a run that is finished or paused can be undone."""

    code: ClassVar[str] = "bulk-not-finished"
    title: ClassVar[str] = "The bulk run still runs"
    title_zh: ClassVar[str] = "该批量任务尚未结束"


class BulkOversized(Refusal):
    """More items than one run may have."""

    code: ClassVar[str] = "bulk-oversized"
    status: ClassVar[int] = 413
    title: ClassVar[str] = "The bulk run has too many items"
    title_zh: ClassVar[str] = "批量任务的对象过多"


def decide(command: BulkCommand, run: Run) -> Sequence[BulkEvent]:  # noqa: PLR0911 (one arm per command)
    """The events of a command; raises the refusals above."""
    match command:
        case Open():
            _require(run, "none", "listing")
            return [BulkOpened(**structs.asdict(command))]
        case List(listing, first, subjects, versions):
            _require(run, "listing")
            if listing != run.listing or first != run.items:
                raise BulkNotReady(f"{run.items} items are listed")
            if first + len(subjects) > ITEMS_MAX:
                raise BulkOversized(f"at most {ITEMS_MAX}")
            return [BulkListed(subjects, versions)]
        case Complete(listing):
            _require(run, "listing")
            if listing != run.listing:
                raise BulkNotReady("it is listed anew")
            return [BulkReady(run.items)]
        case Start(at, approved, resumes):
            return _started(run, at, approved=approved, resumes=resumes)
        case Pause():
            _require(run, "running", "paused", "finished")
            return [BulkPaused()] if run.status == "running" else []
        case Advance(first, results, refusals, at):
            # A pause ends no item that is under way: its result is stated all the same.
            if first != run.next or run.status not in {"running", "paused"}:
                return []
            advanced = BulkAdvanced(first, results, refusals, at)
            after = evolve(run, advanced)
            return [advanced] if after.next < after.items else [advanced, _finished(after)]
        case _:
            assert_never(command)


def _started(run: Run, at: datetime, *, approved: bool, resumes: bool) -> Sequence[BulkEvent]:
    # An approval is of a run that nobody has started. A pause takes nothing back: one person resumes.
    _require(run, "ready", *(() if approved else ("paused", "running", "finished")))
    if run.status in {"running", "finished"}:
        return []
    if run.status == "ready" and run.needs_approval and not approved:
        raise BulkNeedsApproval(f"it has {run.items} items")
    if run.status == "ready" and resumes:
        raise BulkNotReady(f"it is {run.status}")
    started = BulkStarted(at, resumed=run.status == "paused")
    return [started] if run.next < run.items else [started, _finished(run)]


def evolve(run: Run, event: BulkEvent) -> Run:
    """The run after an event."""
    return structs.replace(_evolved(run, event), version=run.version + 1)


def _evolved(run: Run, event: BulkEvent) -> Run:  # noqa: PLR0911 (one arm per event)
    replaced = structs.replace
    match event:
        case BulkOpened():
            return Run("listing", **structs.asdict(event), listed_from=run.version + 2)
        case BulkListed(subjects):
            return replaced(run, items=run.items + len(subjects))
        case BulkReady():
            return replaced(run, status="ready")
        case BulkStarted(at):
            return replaced(run, status="running", active_at=at)
        case BulkPaused():
            return replaced(run, status="paused")
        case BulkAdvanced(_, results, _, at):
            done = sum(result > UNCHANGED for result in results)
            unchanged = sum(result == UNCHANGED for result in results)
            return replaced(
                run,
                next=run.next + len(results),
                done=run.done + done,
                unchanged=run.unchanged + unchanged,
                refused=run.refused + len(results) - done - unchanged,
                active_at=at,
            )
        case BulkFinished():
            return replaced(run, status="finished")
        case _:
            assert_never(event)


def _finished(run: Run) -> BulkFinished:
    return BulkFinished(run.done, run.unchanged, run.refused)


def _require(run: Run, *status: Status) -> None:
    if run.status == "none" and "none" not in status:
        raise BulkUnknown
    if run.status not in status:
        raise BulkNotReady(f"it is {run.status}")


BULK_RUN: Final = Decider[BulkCommand, Run, BulkEvent](
    initial=Run(), decide=decide, evolve=evolve, events=BulkEvent, state_type=Run, state_version=3
)

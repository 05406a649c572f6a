"""What a timer is: a pure fold of events to due times, and the command that is given then.

Events of a stream set, move and withdraw the timers of that stream. The timers that stand are therefore a function of
the event store (and of the calendar, where due times use it), and can be folded again.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from typing import Any, ClassVar, Final, NamedTuple
from uuid import UUID, uuid5

import msgspec

from chassis.write.deciding import CommandContext, CommandT
from chassis.write.events import EventId, RecordedEvent
from chassis.write.handling import CommandHandler

DATA_BYTES_MAX: Final = 4 * 1024
SLOT_BYTES_MAX: Final = 600


class SetTimer(msgspec.Struct, frozen=True):
    """From this event on the slot's command is due at `due_at`, and at no other time.

    A subject has one timer of a name in each `slot`: setting it again moves it. `data` goes to the command; it lies
    in clear in the database, so it holds nothing personal.
    """

    due_at: datetime
    slot: str = ""
    data: Mapping[str, str] = {}


class WithdrawTimer(msgspec.Struct, frozen=True):
    """From this event on the slot has no timer."""

    slot: str = ""


Change = SetTimer | WithdrawTimer


class Due(NamedTuple):
    """A timer whose time has come. `cause` is the event that set it, `position` that event's."""

    name: str
    subject: UUID
    slot: str
    cause: EventId
    position: int
    due_at: datetime
    data: Mapping[str, str]
    tries: int = 0

    @property
    def id(self) -> UUID:
        """The id of the command. It follows from the event that set the timer: given again, it has its outcome
        already."""
        return command_id_of(self.cause, self.name, self.slot)

    def context(self, now: datetime) -> CommandContext:
        """The context of the command. Business time is the time at which it was due."""
        return CommandContext(
            actor=f"timer:{self.name}",
            now=now,
            command_id=self.id,
            effective_at=self.due_at,
            causation_id=self.cause,
        )


def command_id_of(cause: EventId, name: str, slot: str) -> UUID:
    """The id of the command of the timer that an event set."""
    return uuid5(cause, f"{name}:{slot}")


class NotReady(Exception):
    """What a command rests on is not there yet. Its timer is given again for about a day, and has failed then."""

    own_words: ClassVar[bool] = True


Give = Callable[[Due, CommandContext, int], Awaitable[Any]]
"""Gives the command of a due timer to its subject, which is expected at that version; raises what a handler raises, and
NotReady."""


def own_command(due: Due) -> Sequence[tuple[UUID, UUID]]:
    """The one command of most timers: under the id of the timer, given to its subject."""
    return [(due.id, due.subject)]


@dataclass(frozen=True, slots=True)
class TimerRule:
    """When timers of one kind are due. `name` is kebab-case, and for ever: command ids follow from it.

    `events` are the stored names that `changes` takes. `changes` is pure: from an event, whose personal values are
    sealed, to what it sets and withdraws for the subject of its stream. Raise `version` when it changes: the
    timers are then folded again from the first event, and what was given is not given again.
    """

    name: str
    version: int
    events: frozenset[str]
    changes: Callable[[RecordedEvent], Sequence[Change]]
    commands: Callable[[Due], Sequence[tuple[UUID, UUID]]] = field(default=own_command, kw_only=True)
    """Ids of commands and the streams that they are given to. What is carried out has given one of them at least; `crm verify`
    looks for it."""

    def giving(self, give: Give) -> "Timer":
        """The timers of this rule, whose command is given so."""
        return Timer(self.name, self.version, self.events, self.changes, give, commands=self.commands)


@dataclass(frozen=True, slots=True)
class Timer(TimerRule):
    """Timers of one kind with their command."""

    give: Give


class Setting(NamedTuple):
    """A change of one timer as the table keeps it; `set` is None where it is withdrawn.

    `failed`: why the event could not be folded. Such a timer is never given, and is shown.
    """

    name: str
    subject: UUID
    slot: str
    cause: EventId
    position: int
    set: SetTimer | None
    failed: str | None = None


def given_by(handler: CommandHandler[CommandT, Any, Any], command_of: Callable[[Due], CommandT]) -> Give:
    """Gives `command_of(due)` to a command handler."""

    async def give(due: Due, context: CommandContext, version: int) -> Any:
        return await handler.handle(due.subject, command_of(due), context, version)

    return give


def generation_of(timers: Iterable[TimerRule], calendar_digest: str) -> str:
    """Differs where the same events may set other timers: by another version of a timer, or another calendar."""
    names = ",".join(sorted(f"{timer.name}:{timer.version}" for timer in timers))
    return blake2b(f"{names}|{calendar_digest}".encode(), digest_size=8).hexdigest()

"""Decide, then evolve: the types of a domain's write side, and the context of a command. Pure; no I/O.

`decide(command, state)` returns events or refuses, and changes nothing. `evolve(state, event)` returns the
next state and never refuses.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from types import MappingProxyType, UnionType
from typing import Any, ClassVar, Final, Generic, Literal, TypeVar, get_args
from uuid import UUID

import msgspec

from chassis.connections.transient import Transient
from chassis.privacy.personal import marked
from chassis.write.events import Event, Metadata

CommandT = TypeVar("CommandT")
StateT = TypeVar("StateT")
EventT = TypeVar("EventT", bound=Event)

COMMAND_KEY_CHARACTERS_MAX: Final = 200


class Refusal(Exception):
    """Base of the refusals of `decide`. A refusal is a normal response, not an error.

    `code` is stable and kebab-case, `status` the HTTP status that it becomes, `title` a text in English,
    `title_zh` in Chinese. What is said in `args` may be shown to the caller, so it holds nothing personal.

    `more` is what the response has besides. Who sets it knows the caller, and gives what that one may see.
    """

    more: Mapping[str, Any] = MappingProxyType({})

    own_words: ClassVar[bool] = True
    code: ClassVar[str] = "refused"
    status: ClassVar[int] = 409
    title: ClassVar[str] = "The command was refused"
    title_zh: ClassVar[str] = "命令被拒绝"


class SubjectUnknown(Refusal):
    """What has this id is of another kind: a decider has no event that its stream has."""

    code: ClassVar[str] = "subject-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is nothing of this kind with this id"
    title_zh: ClassVar[str] = "没有此编号的对象"


class VersionMismatch(Refusal):
    """The caller decided on another version of the subject than the current one (HTTP: If-Match)."""

    code = "version-mismatch"
    status = 412
    title = "The subject was changed since you read it"
    title_zh = "对象在您读取之后已被更改"

    def __init__(self, expected: int, actual: int) -> None:
        named = f"expected version {expected}" if expected >= 0 else "the tag names no version"
        super().__init__(f"{named}, found {actual}")
        self.expected = expected
        self.actual = actual


class CommandKeyReused(Refusal):
    """The idempotency key came before with another command."""

    code = "idempotency-key-reused"
    status = 422
    title = "The idempotency key was used for another command"
    title_zh = "幂等键已用于另一条命令"


class TooManyConflicts(Refusal, Transient):
    """Other commands changed the stream in each of the tries."""

    code = "too-many-conflicts"
    status = 409
    title = "Too many others change this subject just now"
    title_zh = "当前有过多并发更改，请稍后重试"


class EventOversized(Refusal):
    """The event would be larger than the limit."""

    code = "event-oversized"
    status = 413
    title = "The command is larger than one event may be"
    title_zh = "命令内容超过单个事件的上限"


class AlreadyRecorded(Refusal):
    """Another event has the identity that the command would record."""

    code = "already-recorded"
    status = 409
    title = "This has been recorded before"
    title_zh = "该内容此前已登记"


@dataclass(frozen=True)
class Decider(Generic[CommandT, StateT, EventT]):
    """A domain's write side: where it begins, what it decides, what that comes to, and all events that it gives.

    `events` is the class of its events, or their union. `identify` gives the identity of an event where it must be
    unique in the store (an external id, say). `state_version` is the version of the state: raise it when `evolve` or the
    state's fields change, and older snapshots are no longer read. Snapshots are kept where `state_type` is given;
    msgspec must be able to write it. A command holds a personal value only where an event of the decider may hold it.
    """

    initial: StateT
    decide: Callable[[CommandT, StateT], Sequence[EventT]]
    evolve: Callable[[StateT, EventT], StateT]
    events: type[Event] | UnionType
    identify: Callable[[EventT], UUID | None] = lambda _: None
    state_type: type[StateT] | None = None
    state_version: int = 1

    @cached_property
    def classes(self) -> frozenset[type[Event]]:
        """The classes of its events."""
        return frozenset(get_args(self.events) or (self.events,))

    @cached_property
    def keyed(self) -> bool:
        """Whether its streams have keys of their own: one of its events has a personal value."""
        return any(marked(each) for each in self.classes)

    def fold(self, events: Iterable[EventT], state: StateT | None = None) -> StateT:
        """The state after these events."""
        current = self.initial if state is None else state
        for event in events:
            current = self.evolve(current, event)
        return current


class Approved(msgspec.Struct, frozen=True):
    """The approved proposal that a command carries out.

    `append` is the approval, a `chassis.write.store.Append`: it is stored with the command's events, or neither is. None
    where it is stored already, with the command from which this one follows.
    """

    proposal_id: UUID
    proposed_by: str
    append: Any = None


class CommandContext(msgspec.Struct, frozen=True, kw_only=True):
    """The actor of a command, the time, the reason, and on whose behalf.

    `now` and all ids come from the caller.

    `idempotency_key` is the caller's. Without one the command id is used, so that an internal repeat is
    harmless. `effective_at` is as the caller states it: by a clock that may be ahead of ours.
    """

    actor: str
    now: datetime
    command_id: UUID
    post: str | None = None
    on_behalf_of: str | None = None
    reason: str | None = None
    privilege: Literal["normal", "high"] = "normal"
    effective_at: datetime | None = None
    idempotency_key: str | None = None
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    trace: dict[str, str] = {}
    client_address: str | None = None
    approved: Approved | None = None

    @property
    def effective(self) -> datetime:
        """From when it is so; never later than now."""
        return self.now if self.effective_at is None else min(self.effective_at, self.now)

    @property
    def key(self) -> str:
        """The key under which the outcome is remembered.

        Two actors never share a key, with any characters in their names.
        """
        if self.idempotency_key is None:
            return str(self.command_id)
        return f"{len(self.actor)}:{self.actor}:{self.idempotency_key}"

    def metadata(self) -> Metadata:
        """The metadata of every event of this command."""
        return Metadata(
            effective_at=self.effective,
            recorded_at=self.now,
            actor=self.actor,
            post=self.post,
            on_behalf_of=self.on_behalf_of,
            reason=self.reason,
            privilege=self.privilege,
            command_id=self.command_id,
            correlation_id=self.correlation_id or self.command_id,
            causation_id=self.causation_id or self.command_id,
            trace=self.trace,
            client_address=self.client_address,
            proposed_by=None if self.approved is None else self.approved.proposed_by,
            proposal_id=None if self.approved is None else self.approved.proposal_id,
        )


class Outcome(msgspec.Struct, Generic[EventT], frozen=True):
    """The result of a command. `version` is the stream's after it.

    `position` is the store's, for reading one's own write.

    `replayed`: the same command under the same key was handled before, and this is its outcome of then.
    """

    stream_id: UUID
    version: int
    position: int
    events: tuple[EventT, ...]
    replayed: bool = False

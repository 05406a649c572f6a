"""The stream of a saga: what came, what was decided, what was given and answered. Pure; no I/O.

What is decided is stored in the same append as what it was decided on, before any of it is given. Its events are not
published: the commands that it gives are events of the contexts that carry them out.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, ClassVar, Final, Literal, NamedTuple, assert_never
from uuid import UUID

import msgspec
from msgspec import structs

from chassis.sagas.declaring import (
    STEPS_MAX,
    Answered,
    Came,
    Compensate,
    End,
    Give,
    Heard,
    Move,
    Refused,
    Request,
    Saga,
    Started,
    TimedOut,
)
from chassis.write.deciding import Decider, Refusal
from chassis.write.events import Event

COMPENSATED: Final = "compensated"
COMPENSATED_IN_PART: Final = "compensated-in-part"
"""An operator has skipped a compensation that was refused."""
TIMED_OUT: Final = "timed-out"
HEARD_MAX: Final = 1_000
"""Events that one saga hears."""

Status = Literal["none", "running", "compensating", "stuck", "ended"]
StepStatus = Literal["given", "answered", "refused", "undone", "kept"]


class SagaStarted(Event, frozen=True):
    """A saga begins. `data` is JSON; at `times_out_at` it is compensated, unless it decides otherwise."""

    saga: str
    data: str
    times_out_at: datetime


class SagaHeard(Event, frozen=True):
    """A published event concerns the saga. `data` is JSON."""

    event_id: UUID
    type: str
    data: str


class StepGiven(Event, frozen=True):
    """A command is to be given to the peer `to`, again and again until it is answered or refused."""

    step: str
    to: str
    request: Request
    undo: Request | None


class StepAnswered(Event, frozen=True):
    """The command of a step was carried out."""

    step: str


class StepRefused(Event, frozen=True):
    """The command of a step was refused for good."""

    step: str
    code: str


class SagaTimedOut(Event, frozen=True):
    """The time of the saga is over and it had not ended."""


class CompensationBegun(Event, frozen=True):
    """What was done is taken back from now on, the last step first."""

    because: str


class StepUndone(Event, frozen=True):
    """What a step had done is taken back."""

    step: str


class UndoRefused(Event, frozen=True):
    """What a step had done cannot be taken back just now. The saga is stuck until an operator has it tried again."""

    step: str
    code: str


class UndoTriedAgain(Event, frozen=True):
    """An operator has the compensation that was refused given again."""

    step: str


class UndoSkipped(Event, frozen=True):
    """An operator has the compensation that was refused given no more: what the step had done is kept."""

    step: str


class SagaEnded(Event, frozen=True):
    """The saga is over."""

    outcome: str


SagaEvent = (
    SagaStarted
    | SagaHeard
    | StepGiven
    | StepAnswered
    | StepRefused
    | SagaTimedOut
    | CompensationBegun
    | StepUndone
    | UndoRefused
    | UndoTriedAgain
    | UndoSkipped
    | SagaEnded
)

STARTED: Final = "saga-started"
ENDED: Final = "saga-ended"
SAGAS: Final[dict[str, type[Event]]] = {
    STARTED: SagaStarted,
    "saga-heard": SagaHeard,
    "saga-step-given": StepGiven,
    "saga-step-answered": StepAnswered,
    "saga-step-refused": StepRefused,
    "saga-timed-out": SagaTimedOut,
    "saga-compensation-begun": CompensationBegun,
    "saga-step-undone": StepUndone,
    "saga-undo-refused": UndoRefused,
    "saga-undo-tried-again": UndoTriedAgain,
    "saga-undo-skipped": UndoSkipped,
    ENDED: SagaEnded,
}
"""Their stored names, for the catalogue of a context."""


class Start(msgspec.Struct, frozen=True):
    """Starts a saga; nothing where it was started."""

    saga: str
    data: str
    at: datetime


class Hear(msgspec.Struct, frozen=True):
    """An event came; nothing where it came before, or the saga is over or was never started."""

    event_id: UUID
    type: str
    data: str


class Answer(msgspec.Struct, frozen=True):
    """The peer carried out the command of a step, or took it back; nothing where that is known."""

    step: str
    undoes: bool


class Refuse(msgspec.Struct, frozen=True):
    """The peer refused the command of a step, or to take it back; nothing where that is known."""

    step: str
    undoes: bool
    code: str


class TimeOut(msgspec.Struct, frozen=True):
    """The time of the saga is over; nothing where it has ended, or compensates."""


class TryAgain(msgspec.Struct, frozen=True):
    """An operator has the compensation that was refused given again; nothing where none waits for it."""


class Skip(msgspec.Struct, frozen=True):
    """An operator keeps what the step has done whose compensation was refused; nothing where none waits for it."""


SagaCommand = Start | Hear | Answer | Refuse | TimeOut | TryAgain | Skip


class Step(msgspec.Struct, frozen=True):
    """A step of a saga as it stands."""

    name: str
    to: str
    request: Request
    undo: Request | None
    status: StepStatus = "given"


class Pending(NamedTuple):
    """A command that is to be given now."""

    step: str
    to: str
    request: Request
    undoes: bool


class SagaState(msgspec.Struct, frozen=True):
    """A saga as it stands; `own` is the state of its kind. `refused` names the step whose compensation was refused."""

    saga: str = ""
    status: Status = "none"
    own: Any = None
    times_out_at: datetime | None = None
    steps: tuple[Step, ...] = ()
    heard: frozenset[UUID] = frozenset()
    because: str | None = None
    refused: str | None = None
    code: str | None = None
    outcome: str | None = None

    def step(self, name: str) -> Step:
        """A step by its name; raises StepUnknown."""
        for one in self.steps:
            if one.name == name:
                return one
        raise StepUnknown(name)

    def pending(self) -> list[Pending]:
        """What is to be given now.

        A compensation first has every open command answered: one that still travels could else take effect after it
        was taken back. Then what was done is taken back, one step at a time, the last one first.
        """
        if self.status not in {"running", "compensating"}:
            return []
        open_steps = [one for one in self.steps if one.status == "given"]
        if open_steps or self.status == "running":
            return [Pending(one.name, one.to, one.request, undoes=False) for one in open_steps]
        last = self.to_undo()
        return [] if last is None else [last]

    def to_undo(self) -> Pending | None:
        """The step that is taken back next."""
        for one in reversed(self.steps):
            if one.status == "answered" and one.undo is not None:
                return Pending(one.name, one.to, one.undo, undoes=True)
        return None

    @property
    def taken_back(self) -> bool:
        """Whether nothing is open and nothing is left to take back."""
        return not any(one.status == "given" for one in self.steps) and self.to_undo() is None


class SagaUnknown(Refusal):
    """There is no saga of that id, or of that name."""

    code: ClassVar[str] = "saga-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "There is no such saga"
    title_zh: ClassVar[str] = "没有该跨步骤流程"


class StepUnknown(Refusal):
    """The saga has no step of that name."""

    code: ClassVar[str] = "saga-step-unknown"
    status: ClassVar[int] = 404
    title: ClassVar[str] = "The saga has no such step"
    title_zh: ClassVar[str] = "该流程没有此步骤"


class MoveImpossible(Exception):
    """A saga decided what it cannot do: a step twice, too many steps, an end with an open step. A fault of its code."""

    own_words: ClassVar[bool] = True


def saga_decider(kinds: Mapping[str, Saga[Any]]) -> Decider[SagaCommand, SagaState, SagaEvent]:
    """The decider of sagas of these kinds, by their names."""

    def evolve(current: SagaState, event: SagaEvent) -> SagaState:
        return _evolved(kinds, current, event)

    def decide(command: SagaCommand, current: SagaState) -> Sequence[SagaEvent]:
        return _Deciding(kinds, current).decided(command)

    return Decider(SagaState(), decide, evolve, SagaEvent)


class _Deciding:
    """The events of one command, and the state after them."""

    def __init__(self, kinds: Mapping[str, Saga[Any]], current: SagaState) -> None:
        self._kinds = kinds
        self._now = current
        self._events: list[SagaEvent] = []

    def decided(self, command: SagaCommand) -> list[SagaEvent]:  # noqa: PLR0912 (one arm per command)
        """The events of a command; raises SagaUnknown, StepUnknown, MoveImpossible."""
        now = self._now
        match command:
            case Start(saga, data, at):
                if now.status == "none":
                    self._start(saga, data, at)
            case Hear(event_id, type, data):
                if now.status == "running" and event_id not in now.heard:
                    self._hear(event_id, type, data)
            case Answer(step, undoes):
                self._answer(step, undoes=undoes)
            case Refuse(step, undoes, code):
                self._refuse(step, code, undoes=undoes)
            case TimeOut():
                self._time_out()
            case TryAgain() | Skip() if now.status == "none":
                raise SagaUnknown
            case TryAgain():
                if now.refused is not None:
                    self._add(UndoTriedAgain(now.refused))
            case Skip():
                if now.refused is not None:
                    self._add(UndoSkipped(now.refused))
                    self._end_where_taken_back()
            case _:
                assert_never(command)
        return self._events

    def _time_out(self) -> None:
        if self._now.status == "running":
            self._add(SagaTimedOut())
            self._move(TimedOut())
            if self._now.status == "running":
                self._compensate(TIMED_OUT)

    def _start(self, saga: str, data: str, at: datetime) -> None:
        if (kind := self._kinds.get(saga)) is None:
            raise SagaUnknown(saga)
        self._add(SagaStarted(saga, data, at + kind.lasts))
        self._move(Started(msgspec.json.decode(data)))

    def _hear(self, event_id: UUID, type: str, data: str) -> None:
        if len(self._now.heard) >= HEARD_MAX:
            raise MoveImpossible(f"it hears more than {HEARD_MAX} events")
        self._add(SagaHeard(event_id, type, data))
        self._move(Heard(type, msgspec.json.decode(data)))

    def _answer(self, step: str, *, undoes: bool) -> None:
        found = self._now.step(step)
        if undoes:
            if found.status == "answered" and self._now.status in {"compensating", "stuck"}:
                self._add(StepUndone(step))
                self._end_where_taken_back()
        elif found.status == "given":
            self._add(StepAnswered(step))
            self._follow(Answered(step))

    def _refuse(self, step: str, code: str, *, undoes: bool) -> None:
        found = self._now.step(step)
        if undoes:
            if found.status == "answered" and self._now.status == "compensating":
                self._add(UndoRefused(step, code))
        elif found.status == "given":
            self._add(StepRefused(step, code))
            self._follow(Refused(step, code))

    def _follow(self, came: Came) -> None:
        if self._now.status == "running":
            self._move(came)
        else:
            self._end_where_taken_back()

    def _move(self, came: Came) -> None:
        """What the kind decides on what came, which `_add` has taken into its state."""
        kind = self._kinds.get(self._now.saga)
        if kind is None:
            raise SagaUnknown(self._now.saga)
        moves: Sequence[Move] = kind.decide(self._now.own, came)
        for move in moves:
            if self._now.status != "running":
                raise MoveImpossible("nothing follows an end or a compensation")
            match move:
                case Give(step, to, request, undo):
                    if any(one.name == step for one in self._now.steps) or len(self._now.steps) >= STEPS_MAX:
                        raise MoveImpossible(f"the step {step} is there, or {STEPS_MAX} others")
                    self._add(StepGiven(step, to, request, undo))
                case Compensate(because):
                    self._compensate(because)
                case End(outcome):
                    if any(one.status == "given" for one in self._now.steps):
                        raise MoveImpossible("it ends while a step is open")
                    self._add(SagaEnded(outcome))
                case _:
                    assert_never(move)

    def _compensate(self, because: str) -> None:
        self._add(CompensationBegun(because))
        self._end_where_taken_back()

    def _end_where_taken_back(self) -> None:
        if self._now.status != "ended" and self._now.taken_back:
            kept = any(one.status == "kept" for one in self._now.steps)
            self._add(SagaEnded(COMPENSATED_IN_PART if kept else COMPENSATED))

    def _add(self, event: SagaEvent) -> None:
        self._events.append(event)
        self._now = _evolved(self._kinds, self._now, event)


def _evolved(  # noqa: PLR0911, PLR0912 (one arm per event)
    kinds: Mapping[str, Saga[Any]], current: SagaState, event: SagaEvent
) -> SagaState:
    replaced = structs.replace
    match event:
        case SagaStarted(saga, data, times_out_at):
            begun = SagaState(saga, "running", _initial(kinds, saga), times_out_at)
            return _own(kinds, begun, Started(msgspec.json.decode(data)))
        case SagaHeard(event_id, type, data):
            known = replaced(current, heard=current.heard | {event_id})
            return _own(kinds, known, Heard(type, msgspec.json.decode(data)))
        case StepGiven(step, to, request, undo):
            return replaced(current, steps=(*current.steps, Step(step, to, request, undo)))
        case StepAnswered(step):
            return _own(kinds, _with(current, step, "answered"), Answered(step))
        case StepRefused(step, code):
            return _own(kinds, _with(current, step, "refused"), Refused(step, code))
        case SagaTimedOut():
            return _own(kinds, current, TimedOut())
        case CompensationBegun(because):
            return replaced(current, status="compensating", because=because)
        case StepUndone(step):
            return replaced(_with(current, step, "undone"), status="compensating", refused=None, code=None)
        case UndoRefused(step, code):
            return replaced(current, status="stuck", refused=step, code=code)
        case UndoTriedAgain():
            return replaced(current, status="compensating", refused=None, code=None)
        case UndoSkipped(step):
            return replaced(_with(current, step, "kept"), status="compensating", refused=None, code=None)
        case SagaEnded(outcome):
            return replaced(current, status="ended", outcome=outcome)
        case _:
            assert_never(event)


def _initial(kinds: Mapping[str, Saga[Any]], saga: str) -> Any:
    kind = kinds.get(saga)
    return None if kind is None else kind.initial


def _own(kinds: Mapping[str, Saga[Any]], current: SagaState, came: Came) -> SagaState:
    """With the state of the kind after what came; a kind that is gone has none."""
    kind = kinds.get(current.saga)
    return current if kind is None else structs.replace(current, own=kind.evolve(current.own, came))


def _with(current: SagaState, step: str, status: StepStatus) -> SagaState:
    steps = tuple(structs.replace(one, status=status) if one.name == step else one for one in current.steps)
    return structs.replace(current, steps=steps)

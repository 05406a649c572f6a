"""Given, when, then: a decider's tests read as its specification."""

from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic

from chassis.clock import Clock
from chassis.write.deciding import CommandT, Decider, EventT, Refusal, StateT
from typing_extensions import override


@dataclass(frozen=True)
class Specification(Generic[CommandT, StateT, EventT]):
    """`Specification(decider).given(*events).when(command).then(*events)` or `.then_rejected(Refusal)`."""

    decider: Decider[CommandT, StateT, EventT]

    def given(self, *events: EventT) -> "Given[CommandT, StateT, EventT]":
        """What has happened before."""
        return Given(self.decider, events)


@dataclass(frozen=True)
class Given(Generic[CommandT, StateT, EventT]):
    """A history."""

    decider: Decider[CommandT, StateT, EventT]
    history: tuple[EventT, ...]

    def when(self, command: CommandT) -> "When[CommandT, StateT, EventT]":
        """What is asked now. Decided at once, on a state that `decide` must leave as it is."""
        state = self.decider.fold(self.history)
        before = deepcopy(state)
        try:
            decided: tuple[EventT, ...] | Refusal = tuple(self.decider.decide(command, state))
        except Refusal as refusal:
            decided = refusal
        if state != before:
            raise AssertionError(f"decide changed the state on {command!r}")
        return When(self.decider, self.history, command, decided)

    def then_state(self, expected: StateT) -> None:
        """The state that the history amounts to."""
        state = self.decider.fold(self.history)
        if state != expected:
            raise AssertionError(f"the state is\n  {state!r}\nnot\n  {expected!r}")


@dataclass(frozen=True)
class When(Generic[CommandT, StateT, EventT]):
    """A decision to be looked at."""

    decider: Decider[CommandT, StateT, EventT]
    history: tuple[EventT, ...]
    command: CommandT
    decided: tuple[EventT, ...] | Refusal

    def then(self, *expected: EventT) -> "Given[CommandT, StateT, EventT]":
        """Exactly these events, in this order; gives the longer history back, so that a story can go on."""
        if isinstance(self.decided, Refusal):
            raise AssertionError(f"{self.command!r} was rejected: {self.decided!r}") from self.decided
        if self.decided != expected:
            raise AssertionError(f"{self.command!r} gave\n  {self.decided!r}\nnot\n  {expected!r}")
        return Given(self.decider, (*self.history, *expected))

    def then_nothing(self) -> "Given[CommandT, StateT, EventT]":
        """Accepted, and nothing to tell."""
        return self.then()

    def then_rejected(self, refusal: type[Refusal]) -> None:
        """Refused, with this class and no subclass of it."""
        if not isinstance(self.decided, Refusal):
            raise AssertionError(f"{self.command!r} was accepted: {self.decided!r}")
        if type(self.decided) is not refusal:
            raise AssertionError(f"{self.command!r} was rejected with {self.decided!r}") from self.decided


class ManualClock(Clock):
    """Time that passes when a test, or somebody who sleeps on it, says so."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed = 0.0

    @override
    def now(self) -> datetime:
        return self._now

    @override
    def monotonic(self) -> float:
        return self._elapsed

    @override
    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Lets time pass."""
        self._elapsed += seconds
        self._now += timedelta(seconds=seconds)

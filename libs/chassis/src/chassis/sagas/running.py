"""Starts sagas and gives what they decide: the decision is stored first, then the command is given, then the answer is stored.

Every step may be repeated: a command has the same id at each try, and an answer that is known is not stored again. Any
number of processes may therefore give for one saga at once, and a crash anywhere loses nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid5

import msgspec

from chassis.clock import Clock
from chassis.observability import metrics, telemetry
from chassis.privacy.keys import KeyRing
from chassis.sagas.deciding import (
    ENDED,
    STARTED,
    Answer,
    Hear,
    Pending,
    Refuse,
    SagaCommand,
    SagaEnded,
    SagaEvent,
    SagaStarted,
    SagaState,
    SagaUnknown,
    Skip,
    Start,
    Status,
    TimeOut,
    TryAgain,
    saga_decider,
)
from chassis.sagas.declaring import Saga, command_id
from chassis.sagas.peers import Carried, Peer, PeerUnanswered
from chassis.timers import Change, Due, SetTimer, Timer, TimerRule, WithdrawTimer, given_by
from chassis.write.catalogue import Catalogue
from chassis.write.deciding import CommandContext
from chassis.write.events import RecordedEvent
from chassis.write.handling import CommandHandler
from chassis.write.store import EventStore
from chassis.write.store.items import NIL

OPEN_READ: Final = 500

Handler = CommandHandler[SagaCommand, SagaState, SagaEvent]


class SagaShown(NamedTuple):
    """A saga as it stands. `open_steps` are those whose command was not answered."""

    id: UUID
    saga: str
    status: Status
    times_out_at: datetime | None
    open_steps: tuple[str, ...]
    because: str | None
    refused: str | None
    code: str | None


class Advanced(NamedTuple):
    """A saga after its commands were given; `unanswered` says which peer did not answer, and why."""

    state: SagaState
    unanswered: str | None


def saga_handler(
    store: EventStore,
    catalogue: Catalogue,
    keys: KeyRing,
    kinds: Sequence[Saga[Any]],
    *,
    reached: Callable[[str], None] = lambda _: None,
) -> Handler:
    """The command handler of sagas of these kinds; `reached` is as of `CommandHandler`."""
    decider = saga_decider({kind.name: kind for kind in kinds})
    return CommandHandler(decider, store, catalogue, keys, reached=reached)


class Sagas:
    """The sagas of one context; use it from one event loop.

    `peers` are by the names that `Give` uses; where none are given it can start, hear and show, and gives nothing.
    `reached` is called at the points `before-give` and `after-give`.
    """

    def __init__(
        self,
        store: EventStore,
        handler: Handler,
        clock: Clock,
        peers: Mapping[str, Peer] | None = None,
        *,
        reached: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._handler = handler
        self._clock = clock
        self._peers = dict(peers or {})
        self._reached = reached

    async def start(self, saga: str, id: UUID, data: Mapping[str, Any], context: CommandContext) -> None:
        """Starts a saga under an id that follows from its cause. A second time changes nothing."""
        said = msgspec.json.encode(data, order="deterministic").decode()
        await self._handler.handle(id, Start(saga, said, context.now), context, asked=("start", saga, said))

    async def hear(
        self, id: UUID, event: UUID, type: str, data: Mapping[str, Any], context: CommandContext
    ) -> None:
        """Has a saga hear a published event. A second time changes nothing, and neither does one without a saga."""
        said = msgspec.json.encode(data, order="deterministic").decode()
        await self._handler.handle(id, Hear(event, type, said), context)

    async def try_again(self, id: UUID, context: CommandContext) -> SagaShown:
        """Has the compensation that was refused given again; raises SagaUnknown."""
        return await self._operated(id, TryAgain(), context)

    async def skip(self, id: UUID, context: CommandContext) -> SagaShown:
        """Keeps what the step has done whose compensation was refused, and goes on with those before it; raises
        SagaUnknown."""
        return await self._operated(id, Skip(), context)

    async def _operated(self, id: UUID, command: SagaCommand, context: CommandContext) -> SagaShown:
        self._handler.forget(id)
        await self._handler.handle(id, command, context)
        return await self.shown(id)

    async def advance(self, id: UUID) -> Advanced:
        """Gives what is pending, and stores the answers, until nothing is pending or a peer does not answer.

        Raises StoreUnavailable.
        """
        while True:
            state = await self._current(id)
            pending = state.pending()
            if not pending:
                return Advanced(state, None)
            giving = (self._given(id, state.saga, one) for one in pending)
            results = await asyncio.gather(*giving, return_exceptions=True)
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            if unanswered := [result for result in results if isinstance(result, str)]:
                return Advanced(await self._current(id), unanswered[0])

    async def _given(self, id: UUID, saga: str, pending: Pending) -> str | None:
        """Gives a command and stores its answer; which peer did not answer, and why."""
        try:
            await self._give(id, saga, pending)
        except PeerUnanswered as error:
            metrics.SAGA_STEPS.labels(saga, "unanswered").inc()
            return f"{pending.to}: {error}"
        return None

    async def _give(self, id: UUID, saga: str, pending: Pending) -> None:
        peer = self._peers.get(pending.to)
        if peer is None:
            raise PeerUnanswered(f"no peer is called {pending.to}")
        given = command_id(id, pending.step, undoes=pending.undoes)
        self._reached("before-give")
        with telemetry.span(f"saga step to {pending.to}", {}):
            outcome = await peer.give(given, pending.request, self._context(id, given))
        self._reached("after-give")
        if isinstance(outcome, Carried):
            said, answer = "carried-out", "answered"
            command: SagaCommand = Answer(pending.step, pending.undoes)
        else:
            # It may be refused once more after an operator had it given again: that is another answer.
            said, answer = "refused", f"refused after {(await self._handler.load(id)).version}"
            command = Refuse(pending.step, pending.undoes, outcome.code)
        await self._handler.handle(id, command, self._context(id, uuid5(given, answer)))
        metrics.SAGA_STEPS.labels(saga, f"undo-{said}" if pending.undoes else said).inc()

    async def shown(self, id: UUID) -> SagaShown:
        """A saga as it is now; raises SagaUnknown."""
        return shown_of(id, await self._current(id))

    async def page(self, after: UUID | None, limit: int) -> list[SagaShown]:
        """The sagas that have not ended behind an id, in the order of ids; at most `limit`."""
        found = await self._store.begun_not_ended(STARTED, [ENDED], limit, after or NIL)
        return list(await asyncio.gather(*map(self.shown, found)))

    def open(self) -> AsyncIterator[UUID]:
        """The sagas that have not ended."""
        return self._store.all_begun_not_ended(STARTED, [ENDED], OPEN_READ)

    async def _current(self, id: UUID) -> SagaState:
        self._handler.forget(id)
        return (await self._handler.load(id)).state

    def _context(self, id: UUID, command: UUID) -> CommandContext:
        return CommandContext(
            actor="saga", now=self._clock.now(), command_id=command, correlation_id=id, causation_id=id
        )


def shown_of(id: UUID, state: SagaState) -> SagaShown:
    """A saga by its state; raises SagaUnknown."""
    if state.status == "none":
        raise SagaUnknown(str(id))
    return SagaShown(
        id,
        state.saga,
        state.status,
        state.times_out_at,
        tuple(one.step for one in state.pending()),
        state.because,
        state.refused,
        state.code,
    )


def _changes(recorded: RecordedEvent) -> Sequence[Change]:
    match recorded.event:
        case SagaStarted(times_out_at=times_out_at):
            return [SetTimer(times_out_at)]
        case SagaEnded():
            return [WithdrawTimer()]
        case _:
            return []


TIMEOUT: Final = TimerRule("saga-timeout", 1, frozenset({STARTED, ENDED}), _changes)
"""When the time of a saga is over."""


def saga_timer(handler: Handler) -> Timer:
    """Ends the time of a saga; it belongs to the timers of a context that has sagas."""

    def command(_: Due) -> SagaCommand:
        return TimeOut()

    return TIMEOUT.giving(given_by(handler, command))

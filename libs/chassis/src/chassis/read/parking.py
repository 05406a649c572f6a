"""Poison: tries with back-off, dead letters, and subjects that wait in order while all others go on.

What cannot be digested after three tries goes to the group's dead letters with reason and origin, and its subject is
parked: that event and every later one of the subject is kept, in order. Somebody repairs the cause and asks for
release; then they have their effect in order. Where too much waits, the fault is not one event's, and the whole group
is held until somebody looks.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final
from uuid import UUID

import msgspec
import psycopg
import structlog

from chassis.clock import Clock
from chassis.connections.transient import Transient, is_transient
from chassis.messaging.dead_letters import TRIES_MAX, DeadLetters
from chassis.messaging.delivered import Delivered, Stream, read
from chassis.messaging.transport import Publisher, Record
from chassis.privacy.keys import Tampered
from chassis.read.checkpoints import REASON_CHARACTERS_MAX, Checkpoints, Held, Parked
from chassis.write.deciding import Refusal

BACK_OFF_SECONDS_FIRST: Final = 0.02
BACK_OFF_FACTOR: Final = 5
PARKED_SUBJECTS_MAX: Final = 1_000
HELD_EVENTS_MAX: Final = 100_000
RELEASED_AT_ONCE_MAX: Final = 500
RELEASE_ROUNDS_MAX: Final = 1_000

_log = structlog.get_logger(__name__)

Act = Callable[[Delivered], Awaitable[None]]
"""Gives an event its effect; raises Indigestible where trying again will not help for ever."""


class Indigestible(Exception):
    """The event itself, or the code that reads it, is the reason; the message says why."""


OF_THE_RECORD: Final[tuple[type[Exception], ...]] = (
    Indigestible,
    Refusal,
    Tampered,
    ValueError,  # also what is not readable, not in its contract, of no known type
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    RecursionError,
    msgspec.MsgspecError,
    psycopg.DataError,
    psycopg.IntegrityError,
)
"""What may be the fault of a record, or of the code that reads it. Nothing else is ever held against a record."""


def is_of_the_record(error: BaseException) -> bool:
    """Whether an error may be laid to the record that was being handled, so that its subject is parked.

    Everything else stops the consumer: what is transient, and what nobody thought of.
    """
    return isinstance(error, OF_THE_RECORD) and not is_transient(error)


class GroupHeld(Transient):
    """So much is parked that the group goes no further: the fault is not one event's."""


class Parking:
    """The parked subjects of a group."""

    def __init__(
        self,
        group: str,
        checkpoints: Checkpoints,
        publisher: Publisher,
        clock: Clock,
        *,
        dead_letters: str | None = None,
    ) -> None:
        self.group = group
        self.letters = DeadLetters(group, publisher, clock, topic=dead_letters)
        self.checkpoints = checkpoints
        self.parked: dict[Stream, Parked] = {}
        self.skipped: frozenset[tuple[Stream, int]] = frozenset()
        self._clock = clock

    async def refresh(self) -> None:
        """Reads who is parked: others park and ask for release too."""
        self.parked = await self.checkpoints.parked()
        self.skipped = await self.checkpoints.skipped()

    def holds(self, event: Delivered) -> bool:
        """Whether the event must wait."""
        parked = self.parked.get(event.stream)
        return parked is not None and event.sequence >= parked.sequence

    def skips(self, event: Delivered) -> bool:
        """Whether the event was passed over on purpose."""
        return (event.stream, event.sequence) in self.skipped

    async def give(self, events: Sequence[Delivered], act: Act) -> None:
        """Gives events their effect one by one, in order; from the first that has none, those of its stream wait."""
        waiting: dict[Stream, list[Delivered]] = {}
        for event in events:
            if event.stream in waiting:
                waiting[event.stream].append(event)
            elif not self.skips(event):
                reason = await self._tried(event, act)
                if reason is not None:
                    await self._park(event, reason)
                    waiting[event.stream] = []
        for later in waiting.values():
            await self.keep(later, act)

    async def keep(self, events: Sequence[Delivered], act: Act) -> None:
        """Keeps events of one parked stream; where it was released in between, they have their effect now."""
        if not events:
            return
        waiting = sum(parked.held for parked in self.parked.values())
        if waiting + len(events) > HELD_EVENTS_MAX:
            raise GroupHeld(f"{self.group}: {waiting} events wait, at most {HELD_EVENTS_MAX} may")
        stream = events[0].stream
        if not await self.checkpoints.hold(stream, [Held(event.sequence, event.record) for event in events]):
            self.parked.pop(stream, None)
            await self.give(events, act)

    async def dead_letter(self, record: Record, reason: str) -> None:
        """Puts what is no event, and so of no subject, to the dead letters."""
        await self.letters.write([(record, reason)])

    async def release_wanted(self, act: Act) -> list[UUID]:
        """Releases whom somebody asked to release; those who are free again."""
        wanted = [parked for parked in self.parked.values() if parked.wanted is not None]
        return [parked.subject for parked in wanted if await self._release(parked, act)]

    async def _release(self, parked: Parked, act: Act) -> bool:
        after = parked.sequence - 1
        if parked.wanted == "skip":
            await self.checkpoints.skip(parked.stream, parked.sequence)
            after = parked.sequence
        for _ in range(RELEASE_ROUNDS_MAX):
            some = await self.checkpoints.held(parked.stream, after, RELEASED_AT_ONCE_MAX)
            for held in some:
                event = read(held.record)
                if not isinstance(event, Delivered):
                    raise TypeError("a watermark was parked")
                reason = await self._tried(event, act)
                if reason is not None:
                    await self.checkpoints.stuck(parked, held, event.type, reason)
                    await self.refresh()
                    return False
                after = held.sequence
            if len(some) == RELEASED_AT_ONCE_MAX:
                continue
            if await self.checkpoints.unpark(parked, after):
                await self.refresh()
                _log.info("subject released", group=self.group, subject=str(parked.subject))
                return True
            now = (await self.checkpoints.parked()).get(parked.stream)
            if now is None:
                return True
            parked = now
        raise GroupHeld(f"{self.group}: {parked.subject} gets events faster than they are released")

    async def _tried(self, event: Delivered, act: Act) -> str | None:
        """None where the event had its effect, else why not."""
        seconds = BACK_OFF_SECONDS_FIRST
        for attempt in range(1, TRIES_MAX + 1):
            try:
                await act(event)
            except Indigestible as error:
                if attempt == TRIES_MAX:
                    return str(error)[:REASON_CHARACTERS_MAX]
                await self._clock.sleep(seconds)
                seconds *= BACK_OFF_FACTOR
            else:
                return None
        raise AssertionError("unreachable")

    async def _park(self, event: Delivered, reason: str) -> None:
        if len(self.parked) >= PARKED_SUBJECTS_MAX:
            raise GroupHeld(
                f"{self.group}: {len(self.parked)} subjects are parked, at most {PARKED_SUBJECTS_MAX}"
            )
        await self.letters.write([(event.record, reason)], event)
        parked = Parked(
            event.subject,
            event.context,
            event.type,
            event.sequence,
            event.position,
            reason,
            self._clock.now(),
        )
        await self.checkpoints.park(parked, Held(event.sequence, event.record))
        self.parked[event.stream] = parked
        _log.warning(
            "subject parked", group=self.group, subject=str(event.subject), type=event.type, reason=reason
        )

"""Poison messages: tries with back-off, dead letters, and parked subjects.

An event that cannot be processed in three tries goes to the group's dead letters with reason and place.
Its subject is parked: that event and every later one of the subject is kept, in order, while all other
subjects go on. An operator repairs the cause and requests the release. The kept events are then processed
in order. A subject whose event was processed all the same, by a process that did not know yet that it is
parked, is released without a request. Where too many subjects are parked or too many events kept, one faulty
event cannot be the cause, and the whole group is held until an operator acts.
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
from chassis.messaging.records import Record
from chassis.messaging.transport import Publisher
from chassis.privacy.key_encryption import Tampered
from chassis.read.checkpoints import REASON_CHARACTERS_MAX, Checkpoints, Held, Parked
from chassis.write.deciding import Refusal

BACK_OFF_SECONDS_FIRST: Final = 0.02
BACK_OFF_FACTOR: Final = 5
PARKED_SUBJECTS_MAX: Final = 1_000
HELD_EVENTS_MAX: Final = 100_000
RELEASED_AT_ONCE_MAX: Final = 500
RELEASE_ROUNDS_MAX: Final = 1_000
LOOKED_AT_ONCE_MAX: Final = 20

_log = structlog.get_logger(__name__)

Act = Callable[[Delivered], Awaitable[None]]
"""Processes an event; raises PoisonEvent where another try cannot succeed."""
IsProcessed = Callable[[Delivered], Awaitable[bool]]


class PoisonEvent(Exception):
    """The event itself, or the code that reads it, is at fault; the message gives the reason."""


OF_THE_RECORD: Final[tuple[type[Exception], ...]] = (
    PoisonEvent,
    Refusal,
    Tampered,
    ValueError,  # also an unreadable event, one that breaks its contract, and one of an unknown type
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
"""Errors that a record, or the code that reads it, may have caused. No other error parks a subject."""


def is_of_the_record(error: BaseException) -> bool:
    """Whether the record being handled may have caused an error, so that its subject is parked.

    Every other error stops the consumer: transient and unforeseen ones.
    """
    return isinstance(error, OF_THE_RECORD) and not is_transient(error)


class GroupHeld(Transient):
    """So many events are parked that the group stops: one faulty event cannot be the cause."""


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
        self._next_look = 0

    async def refresh(self) -> None:
        """Reads the parked subjects. Other processes also park subjects and request releases."""
        self.parked = await self.checkpoints.parked()
        self.skipped = await self.checkpoints.skipped()

    def holds(self, event: Delivered) -> bool:
        """Whether the event's subject is parked, so that the event must be kept."""
        parked = self.parked.get(event.stream)
        return parked is not None and event.sequence >= parked.sequence

    def skips(self, event: Delivered) -> bool:
        """Whether an operator skipped the event."""
        return (event.stream, event.sequence) in self.skipped

    async def give(self, events: Sequence[Delivered], act: Act) -> None:
        """Processes events one by one, in order.

        From the first that fails on, the events of its stream are kept.
        """
        waiting: dict[Stream, list[Delivered]] = {}
        for event in events:
            if event.stream in waiting:
                waiting[event.stream].append(event)
            elif not self.skips(event):
                reason = await self._tried(event, act)
                if reason is not None and await self._park(event, reason, act):
                    waiting[event.stream] = []
        for later in waiting.values():
            await self.keep(later, act)

    async def keep(self, events: Sequence[Delivered], act: Act) -> None:
        """Keeps events of one parked stream. Where it was released in between, the events are processed now."""
        if not events:
            return
        waiting = sum(parked.held for parked in self.parked.values())
        if waiting + len(events) > HELD_EVENTS_MAX:
            raise GroupHeld(
                f"{self.group}: {waiting} events of parked subjects wait, at most {HELD_EVENTS_MAX}; see `crm parked list`"
            )
        stream = events[0].stream
        if not await self.checkpoints.hold(stream, [Held(event.sequence, event.record) for event in events]):
            self.parked.pop(stream, None)
            await self.give(events, act)

    async def dead_letter(self, record: Record, reason: str) -> None:
        """Writes a dead letter for a record that is not an event and so has no subject."""
        await self.letters.write([(record, reason)])

    async def release_wanted(self, act: Act) -> list[UUID]:
        """Releases the subjects whose release was requested. Returns the subjects that were released."""
        wanted = [parked for parked in self.parked.values() if parked.wanted is not None]
        return [parked.subject for parked in wanted if await self._release(parked, act)]

    async def release_processed(self, is_processed: IsProcessed, act: Act) -> list[UUID]:
        """Releases parked subjects whose event was processed all the same. Returns the released subjects.

        A process that does not know yet that a subject is parked may process its events, after the cause was
        repaired. Some parked subjects are looked at in each call, all of them in turn.
        """
        streams = sorted(self.parked)
        some = (streams + streams)[self._next_look :][: min(len(streams), LOOKED_AT_ONCE_MAX)]
        self._next_look = (self._next_look + len(some)) % max(1, len(streams))
        released = []
        for parked in [self.parked[stream] for stream in some]:
            first = await self.checkpoints.held(parked.stream, parked.sequence - 1, 1)
            if first and await is_processed(_event_of(first[0])) and await self._release(parked, act, 1):
                released.append(parked.subject)
        return released

    async def _release(self, parked: Parked, act: Act, tries_max: int = TRIES_MAX) -> bool:
        after = parked.sequence - 1
        if parked.wanted == "skip":
            await self.checkpoints.skip(parked.stream, parked.sequence)
            after = parked.sequence
        for _ in range(RELEASE_ROUNDS_MAX):
            some = await self.checkpoints.held(parked.stream, after, RELEASED_AT_ONCE_MAX)
            for held in some:
                event = _event_of(held)
                reason = None if self.skips(event) else await self._tried(event, act, tries_max)
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

    async def _tried(self, event: Delivered, act: Act, tries_max: int = TRIES_MAX) -> str | None:
        """None where the event was processed, else the reason why not."""
        seconds = BACK_OFF_SECONDS_FIRST
        for attempt in range(1, tries_max + 1):
            try:
                await act(event)
            except PoisonEvent as error:
                if attempt == tries_max:
                    return str(error)[:REASON_CHARACTERS_MAX]
                await self._clock.sleep(seconds)
                seconds *= BACK_OFF_FACTOR
            else:
                return None
        raise AssertionError("unreachable")

    async def _park(self, event: Delivered, reason: str, act: Act) -> bool:
        """Parks a subject, and tries its event once more; False where the subject is not parked after that.

        This process may have stopped for long since its last try. Others may have processed the event
        meanwhile, or released its subject and gone on.
        """
        if len(self.parked) >= PARKED_SUBJECTS_MAX:
            raise GroupHeld(
                f"{self.group}: {len(self.parked)} subjects are parked, at most {PARKED_SUBJECTS_MAX}; see `crm parked list`"
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
        await self.refresh()
        now = self.parked.get(event.stream)
        if now is None:
            return await self._tried(event, act, 1) is not None and await self._park(event, reason, act)
        if await self._release(now, act, 1):
            return False
        _log.warning(
            "subject parked", group=self.group, subject=str(event.subject), type=event.type, reason=reason
        )
        return True


def _event_of(held: Held) -> Delivered:
    event = read(held.record)
    if not isinstance(event, Delivered):
        raise TypeError("a watermark was parked")
    return event

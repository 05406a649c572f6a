"""A loop that works while it holds a lease, and the role that runs it.

It stands by, leads, and goes on after servers that did not answer.
"""

import asyncio
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import Final, Generic, Protocol, TypeVar

import structlog

from chassis.clock import Clock, SystemClock
from chassis.connections.transient import is_transient, why
from chassis.ending import ended
from chassis.observability import metrics
from chassis.process.leases import Lease
from chassis.write.store.items import Fenced

BACK_OFF_SECONDS_FIRST: Final = 0.1
BACK_OFF_SECONDS_MAX: Final = 5.0
FENCED_SECONDS: Final = 1.0
MEASURED_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)


class Waiting(Protocol):
    """What may end a wait early: a hint that something was stored."""

    async def wait(self, seconds_max: float) -> None:
        """Returns at the latest after `seconds_max`."""
        ...


class LeasedLoop(ABC):
    """The holder of the lease works, others stand by. `work` is what its log lines call it."""

    def __init__(self, name: str, work: str, lease: Lease, clock: Clock, hint: Waiting | None) -> None:
        self.name = name
        self.leading = False
        self.failing: str | None = None
        self._work = work
        self._lease = lease
        self._clock = clock
        self._hint = hint
        self._back_off_seconds = BACK_OFF_SECONDS_FIRST

    def not_ready(self) -> list[str]:
        """Why no command is given. A process that stands by is ready.

        A database that freezes answers nothing, and raises nothing: then it is the lease that is not renewed, so this
        says so at most `LEASE_SECONDS` later.
        """
        failing = self.failing
        if failing is None and self.leading and not self._lease.stands:
            failing = "the lease was not renewed in time"
        return [] if failing is None else [f"{self.name}: {failing}"]

    async def run(self, stopping: asyncio.Event) -> None:
        """Works until `stopping`. Goes on after servers that did not answer and after another process took the
        lease."""
        while not stopping.is_set():
            try:
                epoch = await self._lease.acquire_unless(stopping, self._stands_by)
                if epoch is not None:
                    await self._lease.during(self._lead(epoch, stopping))
            except Fenced as error:
                self.failing = str(error)
                metrics.LEASES_LOST.labels(self.name).inc()
                _log.warning(f"{self._work} fenced", role=self.name)
                await self._clock.sleep(FENCED_SECONDS)
            except Exception as error:
                if not is_transient(error):
                    raise
                self.failing = why(error)
                _log.warning(f"{self._work} wait", role=self.name, error=type(error).__name__)
                await self._clock.sleep(self._back_off_seconds)
                self._back_off_seconds = min(2 * self._back_off_seconds, BACK_OFF_SECONDS_MAX)
            finally:
                self.leading = False
        await self._lease.release()

    @abstractmethod
    async def _lead(self, epoch: int, stopping: asyncio.Event) -> None:
        """Works while the lease is held."""

    def _stands_by(self) -> None:
        """The database answers: a process that stands by lacks nothing."""
        self.failing = None

    def _succeeded(self) -> None:
        """A turn of the work is done: what failed before is over."""
        self.failing, self._back_off_seconds = None, BACK_OFF_SECONDS_FIRST

    async def _pause(self, seconds_max: float) -> None:
        """Waits so long, or until a hint comes."""
        if self._hint is None:
            await self._clock.sleep(seconds_max)
        else:
            await self._hint.wait(seconds_max)


LoopT = TypeVar("LoopT", bound=LeasedLoop)


class LeasedRole(ABC, Generic[LoopT]):
    """A role that runs one loop, with connections of its own."""

    def __init__(self, name: str, clock: Clock | None = None) -> None:
        self.name = name
        self._clock = clock or SystemClock()
        self._loop: LoopT | None = None

    def not_ready(self) -> list[str]:
        """Why the work is not done."""
        return [f"{self.name}: starting"] if self._loop is None else self._loop.not_ready()

    async def run(self, stopping: asyncio.Event) -> None:
        """Runs until `stopping`; raises ConnectionError where a server is not there at the start."""
        async with AsyncExitStack() as stack:
            loop = self._loop = await self._connected(stack)
            measuring = asyncio.ensure_future(self._measuring(loop))
            try:
                await loop.run(stopping)
            finally:
                await ended(measuring)

    @abstractmethod
    async def _connected(self, stack: AsyncExitStack) -> LoopT:
        """The loop over its connections, which the stack closes."""

    @abstractmethod
    async def _measure(self, loop: LoopT) -> None:
        """Sets the gauges of the work."""

    async def _measuring(self, loop: LoopT) -> None:
        while True:
            await self._measure(loop)
            metrics.LEASE_HELD.labels(self.name).set(int(loop.leading))
            await self._clock.sleep(MEASURED_SECONDS)

"""Objects as async code uses them: in threads of their own, so that a storage that hangs holds nobody else up.

A thread that hangs cannot be ended. Whoever waits for it is told after a while that the storage does not answer.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from itertools import islice
from threading import Lock
from types import TracebackType
from typing import Final, Self, TypeVar

from typing_extensions import override

from chassis.ending import Threads
from chassis.files.objects import Found, Name, Objects, Reading, StorageUnavailable, Writing

THREADS_MAX: Final = 8
FOUND_PER_PAGE: Final = 500
CLOSING_SECONDS_MAX: Final = 5.0
CALL_SECONDS_MAX: Final = 30.0
"""One call, with its wait for a thread. A server of S3 is asked twice in that time."""
ABANDON_SECONDS_MAX: Final = 3.0

T = TypeVar("T")


class Calls:
    """Calls of a storage, each waited for so long at most."""

    def __init__(self, threads: Threads, seconds_max: float) -> None:
        self._threads = threads
        self._seconds_max = seconds_max

    async def run(self, call: Callable[..., T], *arguments: object, seconds_max: float | None = None) -> T:
        """The result; raises StorageUnavailable where there is none in time."""
        try:
            async with asyncio.timeout(seconds_max or self._seconds_max):
                return await self._threads.run(call, *arguments)
        except TimeoutError as error:
            raise StorageUnavailable("the storage of files does not answer in time") from error


class Upload:
    """An object that is being written. Its calls do not overlap, also where one is no longer waited for."""

    def __init__(self, calls: Calls, begin: Callable[[], Writing]) -> None:
        self._calls = calls
        self._begin = begin
        self._writing: Writing | None = None
        self._over = False
        self._lock = Lock()

    async def write(self, part: bytes) -> None:
        """Adds bytes; raises StorageUnavailable."""
        await self._run(lambda writing: writing.write(part))

    async def commit(self) -> None:
        """Makes the object whole, and last; raises StorageUnavailable."""
        await self._run(lambda writing: writing.commit())

    async def abandon(self) -> None:
        """Leaves nothing of it, where it is not whole. Where a call hangs, that one does it when it goes on."""
        self._over = True
        with suppress(StorageUnavailable):
            await self._calls.run(self._abandoned, seconds_max=ABANDON_SECONDS_MAX)

    async def _run(self, call: Callable[[Writing], None]) -> None:
        await self._calls.run(self._called, call)

    def _called(self, call: Callable[[Writing], None]) -> None:
        try:
            with self._lock:
                if self._over:
                    raise StorageUnavailable("the upload was abandoned")
                if self._writing is None:
                    self._writing = self._begin()
                call(self._writing)
        finally:
            if self._over:
                self._abandoned()

    def _abandoned(self) -> None:
        if not self._lock.acquire(blocking=False):
            return  # who has it abandons the object after it
        try:
            if self._writing is not None:
                self._writing.abandon()
        finally:
            self._lock.release()


class Download(AbstractAsyncContextManager["Download"]):
    """An object that is being read; it is closed at the end."""

    def __init__(self, calls: Calls, reading: Reading) -> None:
        self._calls = calls
        self._reading = reading

    async def read(self, size: int) -> bytes:
        """The next bytes, fewer than `size` at the end alone; raises StorageUnavailable."""
        return await self._calls.run(self._reading.read, size)

    async def close(self) -> None:
        """Lets it go; where that hangs, its thread does it later."""
        with suppress(StorageUnavailable):
            await self._calls.run(self._reading.close, seconds_max=ABANDON_SECONDS_MAX)

    @override
    async def __aenter__(self) -> Self:
        return self

    @override
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


class Storage:
    """The objects of one context. Calls raise StorageUnavailable."""

    def __init__(
        self,
        objects: Objects,
        *,
        threads_max: int = THREADS_MAX,
        call_seconds_max: float = CALL_SECONDS_MAX,
    ) -> None:
        self._objects = objects
        self._threads = Threads("files", threads_max)
        self._calls = Calls(self._threads, call_seconds_max)

    def write(self, name: Name) -> Upload:
        """Begins an object of a name that was never used."""
        return Upload(self._calls, lambda: self._objects.write(name))

    async def read(self, name: Name) -> Download:
        """Opens an object; raises ObjectMissing. One that opens when nobody waits for it any more is closed."""
        waiting = True

        def opened() -> Reading:
            reading = self._objects.read(name)
            if not waiting:
                reading.close()
            return reading

        try:
            return Download(self._calls, await self._calls.run(opened))
        except BaseException:
            waiting = False
            raise

    async def delete(self, name: Name) -> None:
        """Deletes an object; nothing where it is not there."""
        await self._calls.run(self._objects.delete, name)

    async def found(self) -> AsyncIterator[list[Found]]:
        """All objects, in pages."""
        every = self._objects.found()
        while page := await self._calls.run(lambda: list(islice(every, FOUND_PER_PAGE))):
            yield page

    async def forget_unfinished(self, before: datetime) -> int:
        """Leaves nothing of objects that were begun before then and never became whole; how many there were."""
        return await self._calls.run(self._objects.forget_unfinished, before)

    async def close(self) -> None:
        """Waits a bounded time for the calls that go on."""
        await self._threads.ended(CLOSING_SECONDS_MAX)

"""Reads of single keys that come while others are under way go to the database together."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")

GATHERED_MAX: Final = 64
IN_FLIGHT_MAX: Final = 1
WAITING_MAX: Final = 10_000


class TooManyWaiting(ConnectionError):
    """More reads wait than are worth waiting for."""


class Gathered(Generic[T]):
    """`get(key)` gives what `load` gives for it, None where it gives nothing; `load` gets many keys at once.

    A key that is being loaded is not joined by whoever asks later: it would get an answer from before its question.
    """

    def __init__(self, load: Callable[[Sequence[str]], Awaitable[dict[str, T]]]) -> None:
        self._load = load
        self._waiting: dict[str, asyncio.Future[T | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def get(self, key: str) -> T | None:
        """One of many; raises what `load` raises, and TooManyWaiting."""
        future = self._waiting.get(key)
        if future is None:
            if len(self._waiting) >= WAITING_MAX:
                raise TooManyWaiting
            future = self._waiting[key] = asyncio.get_running_loop().create_future()
            if len(self._tasks) < IN_FLIGHT_MAX:
                task = asyncio.create_task(self._run())
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(future)

    async def _run(self) -> None:
        while self._waiting:
            some = dict(list(self._waiting.items())[:GATHERED_MAX])
            for key in some:
                del self._waiting[key]
            try:
                loaded = await self._load(list(some))
            except Exception as error:  # noqa: BLE001 (each waiting caller gets it)
                for future in some.values():
                    future.set_exception(error)
                    future.exception()
            else:
                for key, future in some.items():
                    future.set_result(loaded.get(key))

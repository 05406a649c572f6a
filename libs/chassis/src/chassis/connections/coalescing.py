"""Request coalescing: reads of single keys that arrive while a read is under way go to the database together."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, TypeVar

from chassis.connections.transient import is_transient

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

COALESCED_MAX: Final = 64
"""More keys at once save few round trips more. What a load returns should be small until its caller takes it: decoded
together, documents are not in the processor's caches any more when they are used (`benchmarks/panorama_read.py`)."""
WAITING_MAX: Final = 10_000


class TooManyWaiting(ConnectionError):
    """Too many reads wait already."""


class Coalesced(Generic[K, T]):
    """`get(key)` returns the value of `load` for the key. `load` takes up to `coalesced_max` keys at once.

    Where `load` fails for a reason that is not the server's, it is asked for each key alone. A later caller does not
    join a load of its key that is under way: the value could be older than its call.
    """

    def __init__(
        self,
        load: Callable[[Sequence[K]], Awaitable[Mapping[K, T]]],
        *,
        coalesced_max: int = COALESCED_MAX,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._load = load
        self._coalesced_max = coalesced_max
        self._waiting_max = waiting_max
        self._waiting: dict[K, list[asyncio.Future[T]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def get(self, key: K) -> T:
        """Returns the value of one key. Raises the errors of `load`, and TooManyWaiting."""
        callers = self._waiting.get(key)
        if callers is None:
            if len(self._waiting) >= self._waiting_max:
                raise TooManyWaiting
            callers = self._waiting[key] = []
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run())
        # Each caller has a future of its own: one that is cancelled takes no other along.
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        callers.append(future)
        return await future

    async def _run(self) -> None:
        while self._waiting:
            some = dict(list(self._waiting.items())[: self._coalesced_max])
            for key in some:
                del self._waiting[key]
            try:
                await self._answer(some)
            except Exception as error:  # noqa: BLE001 (each waiting caller gets it)
                if len(some) == 1 or is_transient(error):
                    _fail(some, error)
                    continue
                # What is wrong with one key is told to those who asked for that one.
                for key, callers in some.items():
                    try:
                        await self._answer({key: callers})
                    except Exception as of_one:  # noqa: BLE001 (each waiting caller gets it)
                        _fail({key: callers}, of_one)

    async def _answer(self, waiting: Mapping[K, "list[asyncio.Future[T]]"]) -> None:
        loaded = await self._load(list(waiting))
        found = {key: loaded[key] for key in waiting}
        for key, callers in waiting.items():
            for future in callers:
                if not future.done():
                    future.set_result(found[key])


def _fail(waiting: Mapping[K, "list[asyncio.Future[T]]"], error: Exception) -> None:
    for callers in waiting.values():
        for future in callers:
            if not future.done():
                future.set_exception(error)
                future.exception()  # a caller that is cancelled now does not read its result

"""Caches that are bounded by entries and by age, for values that must not stay in memory: keys, and values
they opened.

An entry that is too old is never returned. `expire_all` drops old entries that are never read, so that a
value whose key was destroyed also leaves an idle process.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from threading import Lock
from typing import Any, Final, Generic, TypeVar
from weakref import WeakSet

from chassis.clock import Clock

EXPIRED_EVERY_SECONDS: Final = 5.0
"""An entry is in memory for its age and this, at most."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class AgedCache(Generic[K, V]):
    """At most `entries_max` entries, each for at most `seconds_max` after it was put.

    Safe to share between threads.
    """

    __slots__ = ("__weakref__", "_entries", "_lock", "_monotonic", "entries_max", "seconds_max")

    def __init__(self, entries_max: int, seconds_max: float, monotonic: Callable[[], float]) -> None:
        self.entries_max = entries_max
        self.seconds_max = seconds_max
        self._monotonic = monotonic
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._lock = Lock()
        _caches.add(self)

    def get(self, key: K) -> V | None:
        """The value, or None where there is none that is young enough."""
        entry = self._entries.get(key)
        if entry is None or self._monotonic() - entry[0] > self.seconds_max:
            return None
        return entry[1]

    def get_all(self, keys: Iterable[K]) -> list[V | None]:
        """As `get` gives each of them, at one time."""
        oldest, entry_of = self._monotonic() - self.seconds_max, self._entries.get
        entries = [entry_of(key) for key in keys]
        return [None if entry is None or entry[0] < oldest else entry[1] for entry in entries]

    def put(self, key: K, value: V, *, since: float | None = None) -> None:
        """Keeps a value that was true at `since` (by default now).

        Where there are too many entries, the oldest are dropped.
        """
        self.put_all({key: value}, since=since)

    def put_all(self, values: Mapping[K, V], *, since: float | None = None) -> None:
        """As `put` keeps each of them."""
        with self._lock:
            entries = self._entries
            at = self._monotonic() if since is None else since
            for key, value in values.items():
                entries[key] = at, value
                entries.move_to_end(key)
            while len(entries) > self.entries_max:
                entries.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forgets one."""
        with self._lock:
            self._entries.pop(key, None)

    def clear(self) -> None:
        """Forgets all."""
        with self._lock:
            self._entries.clear()

    def expire(self) -> None:
        """Forgets what is too old."""
        with self._lock:
            oldest = self._monotonic() - self.seconds_max
            entries = self._entries
            while entries and next(iter(entries.values()))[0] < oldest:
                entries.popitem(last=False)

    def __len__(self) -> int:
        """How many are kept, too old ones included."""
        return len(self._entries)


_caches: Final["WeakSet[AgedCache[Any, Any]]"] = WeakSet()


def expire_all() -> None:
    """Forgets what is too old in every cache of this process."""
    for cache in list(_caches):
        cache.expire()


async def expiring(clock: Clock) -> None:
    """Runs `expire_all` again and again until it is cancelled."""
    while True:
        await clock.sleep(EXPIRED_EVERY_SECONDS)
        expire_all()
        await asyncio.sleep(0)

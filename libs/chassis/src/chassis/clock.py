"""The one module that reads the machine's time and makes new ids.

All other code takes a `Clock` as an argument.
"""

import asyncio
import os
import time
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

from typing_extensions import override


class Clock(Protocol):
    """The time, as an argument: the machine's in production; set by the test in tests and the simulation."""

    def now(self) -> datetime:
        """The instant, aware and in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start. They never go back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits that long on this clock."""
        ...


class SystemClock(Clock):
    """The machine's clock."""

    @override
    def now(self) -> datetime:
        return datetime.now(UTC)

    @override
    def monotonic(self) -> float:
        return time.monotonic()

    @override
    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def uuid7(now: datetime, chance: bytes | None = None) -> UUID:
    """A time-ordered id (RFC 9562, version 7). `chance` is ten bytes; from the machine where left out."""
    entropy = int.from_bytes(os.urandom(10) if chance is None else chance[:10])
    milliseconds = int(now.timestamp() * 1000)
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | entropy
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)

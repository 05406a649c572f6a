"""How a process holds memory: how often it looks for cycles, what the allocator gives back, and how a cycle that holds much
is broken at once."""

import ctypes
import gc
import traceback
from typing import Final

THRESHOLDS: Final = (1_000_000, 4, 50)
"""Batches and answers are many objects that die together: with Python's own thresholds a view spends a
quarter of its time, and a large answer a third, on looking for cycles among them. A batch of 10,000 records
is 200,000 objects as it is read, and three times as many while it is handled: the first threshold is above
that. With 300,000 a policy spends a tenth of its time on it."""
MAPPED_BYTES: Final = 16 << 20
"""A block from this size on is mapped by itself. Where nobody sets this size, glibc raises it with each such block that is
freed, and lets twice as much unused memory lie at the end of its heap: a process that ingests a million postings holds a
quarter more."""
_M_MMAP_THRESHOLD: Final = -3


def for_batches() -> None:
    """For processes that work in batches: exempts existing objects, collects only after many new ones, and gives unused
    memory back (glibc; elsewhere the allocator stays as it is).

    It does not collect first: what a start leaves has next to no cycles, and a forked process would copy all its memory.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def let_go(error: BaseException) -> None:
    """Clears the local values of the finished functions that an error, and those that it came from, went through.

    A function that keeps the error in a local value is a cycle with it, and holds its other values, such as the body
    of a request, until somebody looks for cycles.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        traceback.clear_frames(cause.__traceback__)
        cause = cause.__cause__ or cause.__context__

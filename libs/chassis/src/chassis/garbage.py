"""How often a process looks for cycles among its objects, and how a cycle that holds much is broken at once."""

import gc
import traceback
from typing import Final

THRESHOLDS: Final = (1_000_000, 4, 50)
"""Batches and answers are many objects that die together: with Python's own thresholds a view spends a
quarter of its time, and a large answer a third, on looking for cycles among them. A batch of 10,000 records
is 200,000 objects as it is read, and three times as many while it is handled: the first threshold is above
that. With 300,000 a policy spends a tenth of its time on it."""


def look_less_often() -> None:
    """For processes that work in batches: exempts existing objects, and collects only after many new ones.

    It does not collect first: what a start leaves has next to no cycles, and a forked process would copy all its memory.
    """
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


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

"""Repeats a run after a lost database or after another run took over.

Stored postings stay, and the same call goes on.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, TypeVar

from chassis.connections.transient import LOST
from chassis.write.store import Fenced

from sync_ingest.runs.ingest import Ingest

PAUSES_SECONDS: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 10.0)
"""How long to wait after each loss in a row; after the last one the loss is raised."""

LOST_OR_TAKEN: Final[tuple[type[Exception], ...]] = (*LOST, Fenced)
Opened = Callable[[], AbstractContextManager[Ingest]]
Value = TypeVar("Value")


def enduring(
    opened: Opened,
    call: Callable[[Ingest], Value],
    *,
    pauses_seconds: Sequence[float] = PAUSES_SECONDS,
    told: Callable[[Exception, float], None] = lambda _, __: None,
    wait: Callable[[float], object] = time.sleep,
) -> Value:
    """Returns the value of `call`, which is called again with new connections after a loss.

    `told` gets the loss and the pause.

    `call` must be idempotent, as every run is.
    """
    for pause_seconds in pauses_seconds:
        try:
            with opened() as ingest:
                return call(ingest)
        except LOST_OR_TAKEN as lost:
            told(lost, pause_seconds)
            wait(pause_seconds)
    with opened() as ingest:
        return call(ingest)

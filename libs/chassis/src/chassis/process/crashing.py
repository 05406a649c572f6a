"""Named points at which tests can make a process die or freeze, to check the state after it."""

import os
import signal
from collections.abc import Callable
from typing import Final

KILLED: Final = 137


def crash_at(point: str | None, environment: str, *, freeze_at: str | None = None) -> Callable[[str], None]:
    """What code calls at its named points: it ends the process at one, or stops it until SIGCONT, in development
    only. Raises ValueError elsewhere."""
    if point is None and freeze_at is None:
        return lambda _: None
    if environment != "development":
        raise ValueError("CRM_CRASH_AT and CRM_FREEZE_AT are for development only")

    def reached(here: str) -> None:
        if here == point:
            os._exit(KILLED)
        if here == freeze_at:
            os.kill(os.getpid(), signal.SIGSTOP)

    return reached

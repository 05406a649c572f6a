"""Named points at which a run can be made to die, so that tests can show what a crash there leaves behind."""

import os
from collections.abc import Callable
from typing import Final

KILLED: Final = 137


def crash_at(point: str | None, environment: str) -> Callable[[str], None]:
    """What a run calls at its named points: ends the process at `point`, in development only."""
    if point is None:
        return lambda _: None
    if environment != "development":
        raise ValueError("CRM_CRASH_AT is for development only")

    def reached(here: str) -> None:
        if here == point:
            os._exit(KILLED)

    return reached

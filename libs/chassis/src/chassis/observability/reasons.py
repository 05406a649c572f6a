"""The reason of a failure, for places where it is stored, published, logged or shown.

An error may quote what it failed on: a KeyError its key, a database the row, a decoder the value. Its text is
therefore told only where it is our own (`chassis.connections.transient.why`).
"""

from typing import Final

from chassis.connections.transient import why
from chassis.observability.telemetry import places

REASON_CHARACTERS_MAX: Final = 300


def reason_of(error: BaseException) -> str:
    """Class and text of an error whose text is our own, class and place of any other one, in one line."""
    found = why(error)
    if found == type(error).__name__:
        found = " at ".join([found, *places(error, 1)])
    return found[:REASON_CHARACTERS_MAX]

"""The dependencies of routes in one value, for routers that take them as an argument."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from contracts.topics import EVENTS

from chassis.web.callers import caller
from chassis.web.commands import command_context, idempotency_key
from chassis.web.conditional import expected_version
from chassis.web.consistency import WaitFor, reading_own_write


@dataclass(frozen=True, slots=True)
class Doors:
    """What stands before routes: each is a FastAPI dependency."""

    at_least: Callable[..., Any]
    caller: Callable[..., Any] = caller
    commanding: Callable[..., Any] = command_context
    idempotency_key: Callable[..., Any] = idempotency_key
    expected_version: Callable[..., Any] = expected_version


def doors(wait_for: WaitFor, contexts: Collection[str] = EVENTS) -> Doors:
    """The doors of a service whose views can be waited for."""
    return Doors(reading_own_write(wait_for, contexts))

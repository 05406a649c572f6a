"""The dependencies of routes, in one value that routers take as an argument."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from contracts.topics import EVENTS

from chassis.privacy.rights import Rights
from chassis.web.callers import Permitted
from chassis.web.commands import command_context, idempotency_key
from chassis.web.conditional import expected_version
from chassis.web.consistency import NO_HEADS, Heads, ReadingOwnWrite, WaitFor


@dataclass(frozen=True, slots=True)
class Dependencies:
    """The FastAPI dependencies that routes declare."""

    at_least: Callable[..., Any]
    caller: Callable[..., Any]
    at_least_derived: Callable[..., Any]
    """As `at_least`, for a route that shows derived views."""
    commanding: Callable[..., Any] = command_context
    idempotency_key: Callable[..., Any] = idempotency_key
    expected_version: Callable[..., Any] = expected_version


def dependencies(
    wait_for: WaitFor,
    routes: Mapping[str, Rights],
    contexts: Collection[str] = EVENTS,
    heads: Heads = NO_HEADS,
    *,
    high: Collection[str] = (),
    wait_for_derived: WaitFor | None = None,
) -> Dependencies:
    """The dependencies of a service whose views can be waited for; `routes` says by the name of a route who
    may call it and over which rows, `heads` where the stores end that this process can ask. `high` names the routes of high
    privilege."""
    derived = ReadingOwnWrite(wait_for_derived or wait_for, contexts, heads)
    return Dependencies(ReadingOwnWrite(wait_for, contexts, heads), Permitted(routes, high), derived)

"""The declaration of a service.

The programs that run its processes and those that inspect it read the same value.

Each service names its declaration in its `pyproject.toml`, in the entry-point group `crm.services`.
`services()` returns the installed ones, so that no program keeps a list of them.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Final, Generic, TypeVar

from contracts.topics import EVENTS, Topic

from chassis.connections.migrating import Tables
from chassis.connections.settings import Settings, from_environment
from chassis.messaging.asyncapi import Taken
from chassis.process.roles import Role
from chassis.process.roles import main as run_process
from chassis.read.projecting import View
from chassis.relay import Words
from chassis.web import Routes
from chassis.web.consistency import Heads
from chassis.write.events import Event

GROUP: Final = "crm.services"

S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, slots=True)
class Context:
    """A context: its event store, the function that makes its public events, and their topic."""

    name: str
    schema: str
    words: Words
    stored_names: Mapping[str, type[Event]]

    @property
    def topic(self) -> Topic:
        """The topic of its events."""
        return EVENTS[self.name]


@dataclass(frozen=True, slots=True)
class Service(Generic[S]):
    """The parts of a service.

    `name`: of its processes and of its consumer groups. `routes(settings, heads)`: its HTTP routes;
    `heads` give the last positions of the stores of other contexts, for requests that wait for a view.
    `without_postgres`: the roles that use no PostgreSQL. `taken`: topics of other systems' records that it
    takes, with their schemas.
    """

    name: str
    settings: type[S]
    tables: Sequence[Tables]
    context: Context
    roles: Callable[[S], Mapping[str, Callable[[], Role]]]
    routes: Callable[[S, Heads], AbstractAsyncContextManager[Routes]]
    views: tuple[View, ...] = ()
    without_postgres: frozenset[str] = frozenset()
    taken: tuple[Taken, ...] = ()

    def main(self) -> int:
        """`python -m <service> <role>...`; the exit code."""
        settings = from_environment(self.settings)
        return run_process(
            self.name, self.roles(settings), settings, self.tables, without_postgres=self.without_postgres
        )

    def run(self) -> None:
        """Runs the process and ends it with its exit code."""
        sys.exit(self.main())


@cache
def services() -> tuple[Service[Any], ...]:
    """Every service that is installed, by name."""
    found: list[Service[Any]] = [each.load() for each in entry_points(group=GROUP)]
    return tuple(sorted(found, key=lambda service: service.name))

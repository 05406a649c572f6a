"""A service, declared once: what starts its processes and what looks at it from outside read the same value.

Each service says in its `pyproject.toml` where its declaration is, in the entry-point group `crm.services`. Whoever asks
for `services()` gets those that are installed, so that no program keeps a list of them.
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
    """A context: its store, what of it is published, and where."""

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
    """All that a service is.

    `name`: of its processes and of its consumer groups. `routes(settings, heads)`: its HTTP; `heads` tell where the stores
    of other contexts end, for whoever waits for a view to show something. `without_postgres`: the roles that use no
    PostgreSQL. `taken`: topics of others' records that it takes, with their shape.
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
